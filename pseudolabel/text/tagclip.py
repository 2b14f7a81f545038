"""TagCLIP (Lin et al. 2024): scores of classes from CLIP's patches, refined by its attention and by crops.

docs/methods.md says which details are choices of this package.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import find_objects, label
from transformers import CLIPModel, CLIPProcessor
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from pseudolabel.text.clip import ClipScorer

LONGEST = 1024  # pixels: attention grows with the fourth power of an image's side
INSIDE = 0.4  # of a map's range; boxes are drawn around what lies above
HALF = 0.5

Box = tuple[int, int, int, int]


class Patches(NamedTuple):
    """What CLIP makes of an image.

    Attributes:
        embeddings: float32 (patches, d) of length 1.
        affinity: float32 (patches, patches), see `LateAttention`.
        grid: rows and columns.
    """

    embeddings: torch.Tensor
    affinity: torch.Tensor
    grid: tuple[int, int]


def score_image(clip: ClipScorer, image: Image.Image, texts: torch.Tensor, classes: int) -> torch.Tensor:
    """Scores in [0, 1] of an RGB image's classes: float32 (classes,) on the CPU.

    Args:
        clip: a CLIP with a ViT.
        image: of any size.
        texts: float32 (classes + background words, d) of length 1, classes first.
        classes: how many of the texts are classes.
    """
    patches = see(clip.model, clip.processor, image)
    words = (clip.scale * patches.embeddings @ texts.T).softmax(1)
    maps = refine(words[:, :classes], patches.affinity, patches.grid).cpu()
    scores = maps.amax(0)
    chosen = above_half(scores).nonzero().flatten().tolist()
    if not chosen:  # of scores that are not numbers
        return scores
    boxes = [outer_box(inside(maps[:, index].reshape(patches.grid))) for index in chosen]
    crops = [image.crop(to_pixels(box, patches.grid, image.size)) for box in boxes]
    again = (clip.scale * clip.image_embeddings(crops) @ texts.T).softmax(1).cpu()
    for row, index in enumerate(chosen):
        scores[index] = (scores[index] + again[row, index]) / 2
    return scores


def grid_of(size: tuple[int, int], patch: int, longest: int = LONGEST) -> tuple[int, int]:
    """Rows and columns of patches for an image of (width, height) pixels, scaled down to the longest side."""
    factor = min(1.0, longest / max(size))
    width, height = (max(1, round(side * factor / patch)) for side in size)
    return height, width


@torch.inference_mode()
def see(model: CLIPModel, processor: CLIPProcessor, image: Image.Image) -> Patches:
    """Patches before the last layer, through the final norm and projection, at the image's own size."""
    vision, patch = model.vision_model, model.config.vision_config.patch_size
    rows, columns = grid_of(image.size, patch)
    resized = image.resize((columns * patch, rows * patch), Image.Resampling.BICUBIC)
    pixels = processor.image_processor(resized, do_resize=False, do_center_crop=False, return_tensors="pt").pixel_values
    pixels = pixels.to(model.device, model.dtype)
    states = vision.pre_layrnorm(vision.embeddings(pixels, interpolate_pos_encoding=True))
    late = LateAttention(len(vision.encoder.layers))
    for layer in vision.encoder.layers[:-1]:
        states, attention = _pass(layer, states)
        late.add(attention[1:, 1:])
    embeddings = model.visual_projection(vision.post_layernorm(states[0, 1:])).float()
    return Patches(torch.nn.functional.normalize(embeddings, dim=1), late.affinity(), (rows, columns))


class LateAttention:
    """Mean attention of late layers where enough layers put it above their average, summed layer by layer.

    Of 12 layers the late ones are the 9th to the 11th, and enough is four; of other depths, the same shares.
    """

    def __init__(self, depth: int) -> None:
        self.first = min(round(depth * 2 / 3), depth - 2)
        self.enough = max(1, round(depth / 3))
        self.count, self.votes, self.total = 0, torch.zeros(()), torch.zeros(())

    def add(self, attention: torch.Tensor) -> None:
        """The next layer's, mean over heads: float32 (patches, patches); of all layers but the last."""
        self.votes = self.votes.to(attention.device) + (attention > attention.mean())
        if self.count >= self.first:
            self.total = self.total.to(attention.device) + attention
        self.count += 1

    def affinity(self) -> torch.Tensor:
        """float32 (patches, patches), rows sum to 1; a patch without any entry keeps its own value."""
        kept = self.total * (self.votes >= self.enough)
        whole = kept.sum(1, keepdim=True)
        return torch.where(whole > 0, kept / whole.clamp_min(1e-12), torch.eye(len(kept), device=kept.device))


def refine(maps: torch.Tensor, weights: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Spread each class's map along the attention, from and to the boxes around it: float32 (patches, classes)."""
    boxes = [torch.from_numpy(boxed(inside(column.reshape(grid)))).flatten() for column in maps.T.cpu()]
    mask = torch.stack(boxes, 1).to(maps.device)
    return weights @ (maps * mask) * mask


def inside(scores: torch.Tensor) -> torch.Tensor:
    """Patches above a share of the map's range; where all are equal, all of them."""
    low, high = scores.aminmax()
    return scores >= low + INSIDE * (high - low)


def boxed(mask: torch.Tensor) -> np.ndarray:
    """The boxes around a bool (rows, columns) mask's connected parts, filled."""
    parts, _ = label(mask.numpy())
    filled = mask.numpy().copy()
    for box in find_objects(parts):
        filled[box] = True
    return filled


def outer_box(mask: torch.Tensor) -> Box:
    """Left, top, right, bottom around all of a bool mask, the last two exclusive."""
    rows, columns = mask.nonzero().T
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def to_pixels(box: Box, grid: tuple[int, int], size: tuple[int, int]) -> Box:
    """A box of patches in an image of (width, height) pixels."""
    (rows, columns), (width, height) = grid, size
    left, top, right, bottom = box
    across, down = width / columns, height / rows
    return int(left * across), int(top * down), math.ceil(right * across), math.ceil(bottom * down)


def above_half(scores: torch.Tensor) -> torch.Tensor:
    """Classes above half of the range of an image's scores; all where they are equal."""
    low, high = scores.aminmax()
    return (scores > low + HALF * (high - low)) | (low == high)


def _pass(layer: CLIPEncoderLayer, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One layer, and its attention, which fused kernels do not give: one head's matrix exists at a time."""
    inner, tokens = layer.self_attn, layer.layer_norm1(states)
    query, key, value = (
        part(tokens)[0].unflatten(1, (inner.num_heads, -1)).transpose(0, 1)
        for part in (inner.q_proj, inner.k_proj, inner.v_proj)
    )
    mixed, mean = [], torch.zeros((), device=states.device)
    for head in range(inner.num_heads):
        weights = (query[head] @ key[head].mT * inner.scale).float().softmax(-1)
        mixed.append(weights.to(states.dtype) @ value[head])
        mean = mean + weights / inner.num_heads
    states = states + inner.out_proj(torch.cat(mixed, 1))[None]
    return states + layer.mlp(layer.layer_norm2(states)), mean
