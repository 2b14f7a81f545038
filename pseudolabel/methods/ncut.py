"""DiffCut (Couairon et al. 2024): recursive normalised cuts of an image's features."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from pseudolabel.config import DiffSegConfig
from pseudolabel.diffusion.features import FeatureLayer, read_features
from pseudolabel.diffusion.layers import AttentionLayer, attention_layers, numbered
from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.errors import SampleError, SettingError

MOST_POSITIONS = 1024  # each cut solves an eigenproblem of this size


class CutFeatures:
    """Segments of images by cutting the outputs of one self-attention layer, from one forward pass."""

    def __init__(self, model: DiffusionModel, config: DiffSegConfig) -> None:
        """Check the settings against the model.

        Raises:
            SettingError: if the layer is not one, is too large, or has weights of zero.
        """
        self.model, self.config = model, config
        layer = _layer(model, config.self_layers)
        self.layer = FeatureLayer(layer.name, "self_attention", layer.stride)
        self.empty = model.encode_text([""])

    @torch.inference_mode()
    def __call__(self, latents: torch.Tensor, noise: torch.Tensor) -> list[torch.Tensor | SampleError]:
        """Maps of each image's segments; a pixel belongs to the segment with the largest one.

        The product of an enlarged feature with a segment's mean feature is the enlarged product, so the features
        themselves need not be enlarged.

        Args:
            latents: float32 (B, c, h, w) scaled latents.
            noise: float32 (B, c, h, w), standard normal.

        Returns:
            float32 (P, n, n) for each image, on the model's device; an error for one whose features overflowed.
        """
        timesteps = torch.full((len(latents),), self.config.timestep)
        noised = self.model.add_noise(self.model.upload(latents), self.model.upload(noise), timesteps)
        text = self.empty.expand(len(latents), -1, -1)
        (features,) = read_features(self.model, noised, timesteps, text, [self.layer])
        unit = F.normalize(features.float().flatten(2), dim=1).mT
        return [self._maps(rows) for rows in unit]

    def _maps(self, rows: torch.Tensor) -> torch.Tensor | SampleError:
        """float32 (P, n, n) products of unit features (n * n, d) with the mean feature of each of P segments."""
        if not rows.isfinite().all():
            return SampleError("features", f"the features of {self.layer.name} overflow; set `model.dtype` to float32")
        labels = cut(affinity(rows.double().cpu().numpy(), self.config.cut_power), self.config.cut_threshold)
        members = F.one_hot(torch.from_numpy(labels).to(rows.device)).to(rows.dtype)
        means = (members / members.sum(0)).T @ rows
        side = int(len(rows) ** 0.5)
        return (means @ rows.T).unflatten(1, (side, side))


def affinity(rows: np.ndarray, power: float) -> np.ndarray:
    """Cosines of all pairs of features, min-max normalised and raised to a power: float64 (n, n) in [0, 1].

    Args:
        rows: float64 (n, d) unit vectors.
        power: the exponent, 10 in the paper.
    """
    cosines = rows @ rows.T
    low, high = cosines.min(), cosines.max()
    if high - low < np.finfo(np.float32).eps:  # of positions that are all alike
        return np.ones_like(cosines)
    return ((cosines - low) / (high - low)) ** power


def cut(weights: np.ndarray, threshold: float) -> np.ndarray:
    """Segments by recursive normalised cuts (Shi and Malik 2000): a part is cut in two while its best Ncut is small.

    Args:
        weights: float64 (n, n), symmetric, at least 0, with a positive diagonal.
        threshold: parts whose best Ncut is at least this stay whole, .5 in the paper.

    Returns:
        int64 (n,) labels 0, 1, ... in the order of their first positions.
    """
    whole, pending = [], [np.arange(len(weights))]
    while pending:
        part = pending.pop()
        value, first = best_cut(weights[np.ix_(part, part)])
        if value < threshold:
            pending += [part[first], part[~first]]
        else:
            whole.append(part)
    labels = np.empty(len(weights), np.int64)
    for number, part in enumerate(sorted(whole, key=lambda part: part.min())):
        labels[part] = number
    return labels


def best_cut(weights: np.ndarray) -> tuple[float, np.ndarray]:
    """The smallest Ncut among those that the second eigenvector orders.

    With y = D^-1/2 v, v the eigenvector of D^-1/2 A D^-1/2 with the second largest eigenvalue, the positions are sorted
    by y, and the first k are cut from the others, for every k: Ncut = cut / assoc(first) + cut / assoc(others), where
    assoc is a sum of degrees and cut = assoc - the weights inside. The paper tries 100 thresholds of y.

    Args:
        weights: float64 (n, n), symmetric, at least 0, with a positive diagonal.

    Returns:
        The smallest Ncut, infinite for a single position, and bool (n,), which positions are the first ones.
    """
    count = len(weights)
    if count < 2:
        return np.inf, np.zeros(count, bool)
    degrees = weights.sum(1)
    scale = degrees**-0.5
    # Of torch: on shared cores SciPy's threads spin, and a cut took seventy times as long.
    vector = torch.linalg.eigh(torch.from_numpy(weights * scale * scale[:, None]))[1][:, -2].numpy()
    vector = vector * np.sign(vector[np.abs(vector).argmax()])  # a library may return either sign
    order = np.argsort(vector * scale, kind="stable")
    values = _ncuts(weights[np.ix_(order, order)], degrees[order])
    first = np.zeros(count, bool)
    first[order[: values.argmin() + 1]] = True
    return float(values.min()), first


def _ncuts(weights: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Ncut of the first k positions and the others, for k = 1 to n - 1: float64 (n - 1,)."""
    inside = np.cumsum(2 * np.tril(weights, -1).sum(1) + weights.diagonal())[:-1]
    first = degrees.cumsum()[:-1]
    crossing = first - inside
    return crossing / first + crossing / (degrees.sum() - first)


def _layer(model: DiffusionModel, numbers: Sequence[int]) -> AttentionLayer:
    """The layer with the number, or the last one on the way down."""
    layers = attention_layers(model.unet, model.vae_stride)
    down = [layer for layer in layers if layer.kind == "self" and layer.name.startswith("down_blocks")]
    chosen = numbered(layers, "self", numbers, "diffseg.self_layers") if numbers else down[-1:]
    if len(chosen) != 1:
        raise SettingError(f"`diffseg.self_layers` {list(numbers)}: with `diffseg.grouping` ncut, give one layer")
    layer = chosen[0]
    side = model.image_size // layer.stride
    if side**2 > MOST_POSITIONS:
        raise SettingError(
            f"`diffseg.self_layers` {list(numbers)}: the layer has {side} x {side} positions, and cuts are made of at "
            f"most {MOST_POSITIONS}; give one of a larger stride"
        )
    if not model.unet.get_submodule(layer.name).to_v.weight.any():
        raise SettingError(
            f"the self-attention layer {layer.name} has weights of zero, so all positions would be alike; give another "
            "with `diffseg.self_layers`; `pseudolabel probe` lists them"
        )
    return layer
