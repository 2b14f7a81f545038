"""DiffCut written plainly: the quadratic form of Shi and Malik for every cut, recursion, features enlarged in full."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from tests.plain.diffsegmenter import add_noise, encode_image, encode_text, pool_text, run_unet


@torch.inference_mode()
def features(model, image: Image.Image, layer: str, timestep: int, noise: torch.Tensor) -> torch.Tensor:
    """(d, h, w) output of a self-attention layer, before the residual is added."""
    noised = add_noise(model, encode_image(model, image, None), noise, timestep)
    found = []
    hook = model.unet.get_submodule(layer).register_forward_hook(lambda _, __, output: found.append(output[0].float()))
    run_unet(model, noised[None].to(model.unet.dtype), timestep, encode_text(model, ""), pool_text(model, ""))
    hook.remove()
    side = round(len(found[0]) ** 0.5)
    return found[0].T.reshape(-1, side, side)


def segment(maps: torch.Tensor, size: tuple[int, int], power: float, threshold: float) -> np.ndarray:
    """Labels (height, width): each pixel's enlarged feature goes to the segment whose mean is the most alike."""
    flat = maps.flatten(1).T.double().numpy()
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    cosines = np.array([[one @ other for other in unit] for one in unit])
    weights = ((cosines - cosines.min()) / (cosines.max() - cosines.min())) ** power
    means = [unit[part].mean(0) for part in split(weights, list(range(len(unit))), threshold)]
    grid = torch.tensor(unit.T).reshape(1, -1, *maps.shape[1:])
    large = F.interpolate(grid, size, mode="bilinear")[0].numpy()
    return np.stack([np.einsum("d,dhw->hw", mean, large) for mean in means]).argmax(0)


def split(weights: np.ndarray, part: list[int], threshold: float) -> list[list[int]]:
    """The parts of a part, in no particular order."""
    if len(part) == 1:
        return [part]
    own = weights[np.ix_(part, part)]
    degrees = np.diag(own.sum(1))
    root = np.diag(own.sum(1) ** -0.5)
    vectors = np.linalg.eigh(root @ (degrees - own) @ root)[1]
    y = root @ vectors[:, 1]
    candidates = []
    for value in sorted(y)[:-1]:
        inside = y <= value
        candidates.append((quadratic_form(own, inside), inside))
    best, inside = min(candidates, key=lambda candidate: candidate[0])
    if best >= threshold:
        return [part]
    ones = [p for p, is_in in zip(part, inside, strict=True) if is_in]
    others = [p for p, is_in in zip(part, inside, strict=True) if not is_in]
    return split(weights, ones, threshold) + split(weights, others, threshold)


def quadratic_form(weights: np.ndarray, inside: np.ndarray) -> float:
    """Ncut of any cut as y' (D - W) y / y' D y with y = 1 inside and -b outside (Shi and Malik, section 2.1)."""
    degrees = np.diag(weights.sum(1))
    share = weights[inside].sum() / weights.sum()
    y = np.where(inside, 1.0, -share / (1 - share))
    return float(y @ (degrees - weights) @ y / (y @ degrees @ y))
