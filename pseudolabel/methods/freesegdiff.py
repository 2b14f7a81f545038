"""FreeSeg-Diff (Corradini et al. 2024): clusters of diffusion features, named by CLIP."""

from collections.abc import Collection, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from pseudolabel.config import FreeSegDiffConfig
from pseudolabel.diffusion.features import FeatureKind, FeatureLayer, feature_layers, read_features
from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.errors import SettingError
from pseudolabel.methods.kmeans import kmeans
from pseudolabel.records import BACKGROUND

KINDS: dict[str, tuple[FeatureKind, ...]] = {
    "queries": ("queries",),
    "resblock": ("resblock",),
    "attention": ("attention",),
    "both": ("resblock", "attention"),
}
MAX_CLUSTERS = 256  # regions are numbered in uint8


class FeatureClusters:
    """Unnamed regions of images, from one forward pass with the empty prompt."""

    def __init__(self, model: DiffusionModel, config: FreeSegDiffConfig) -> None:
        """Check the settings against the model.

        Raises:
            SettingError: if one of them is out of range or does not fit this model.
        """
        _check(model, config)
        self.model, self.config = model, config
        self.layers = _choose_layers(config, feature_layers(model.unet, model.vae_stride))
        self.embeddings = model.encode_text([""])

    @torch.inference_mode()
    def regions(
        self, latents: torch.Tensor, noise: torch.Tensor | None, generators: Sequence[torch.Generator]
    ) -> torch.Tensor:
        """K-means on the features of each image separately.

        Args:
            latents: float32 (B, c, h, w) scaled latents.
            noise: float32 (B, c, h, w), standard normal; None adds none.
            generators: one per image, on the CPU, for the starts of K-means.

        Returns:
            int64 (B, side, side) cluster numbers in 0..K-1 on the model's device.
        """
        model, config = self.model, self.config
        timesteps = torch.full((len(latents),), config.timestep)
        latents = model.upload(latents)
        if noise is not None:
            latents = model.add_noise(latents, model.upload(noise), timesteps)
        embeddings = self.embeddings.expand(len(latents), -1, -1)
        return cluster(read_features(model, latents, timesteps, embeddings, self.layers), generators, config)


def cluster(
    features: Sequence[torch.Tensor], generators: Sequence[torch.Generator], config: FreeSegDiffConfig
) -> torch.Tensor:
    """K-means on the positions of each image separately.

    Args:
        features: floating (B, channels, h, h) maps.
        generators: one per image, on the CPU, for the starts.
        config: number of clusters and starts, and the side to which the maps are resized.

    Returns:
        int64 (B, side, side) cluster numbers in 0..K-1 on the features' device.
    """
    points = concatenate(features, config.side)
    return kmeans(points, config.clusters, generators, config.restarts).unflatten(1, (config.side, config.side))


def concatenate(features: Sequence[torch.Tensor], side: int) -> torch.Tensor:
    """Enlarge feature maps to one side and stack their channels, up to a rotation that preserves all distances.

    Enlarging is linear: distances between enlarged points depend only on the inner products of the few points of the
    small map. Thousands of channels of a 16 x 16 map are reduced to 256, exactly, before enlarging.

    Args:
        features: floating (B, channels, h, h) maps.
        side: of the square to which they are resized, bilinearly (corners not aligned).

    Returns:
        float32 (B, side * side, d): one point per position; d is at most side * side.
    """
    levels = []
    for own in sorted({feature.shape[-1] for feature in features}):
        maps = torch.cat([feature.float() for feature in features if feature.shape[-1] == own], 1)
        few = _rotate(maps.flatten(2).mT).mT.unflatten(-1, (own, own))
        levels.append(F.interpolate(few, size=(side, side), mode="bilinear", align_corners=False))
    return _rotate(torch.cat(levels, 1).flatten(2).mT)


def _rotate(points: torch.Tensor) -> torch.Tensor:
    """Centre points (B, n, d) and rotate them into the subspace that they span: (B, n, min(n, d))."""
    centred = points - points.mean(1, keepdim=True)
    if centred.shape[2] <= centred.shape[1]:
        return centred
    return torch.linalg.qr(centred.mT, mode="r").R.mT


def enlarge_clusters(clusters: np.ndarray, size: tuple[int, int], config: FreeSegDiffConfig) -> np.ndarray:
    """Clusters at an image's size, each pixel with the one at its centre or at its upper left corner.

    Args:
        clusters: uint8 (side, side).
        size: (height, width).
        config: `enlarge` selects one of the two.

    Returns:
        uint8 (height, width).
    """
    height, width = size
    if config.enlarge == "nearest_exact":
        return np.asarray(Image.fromarray(clusters).resize((width, height), Image.Resampling.NEAREST))
    rows, columns = (np.arange(pixels) * own // pixels for own, pixels in zip(clusters.shape, size, strict=True))
    return clusters[rows[:, None], columns]


def cut_out(image: np.ndarray, regions: np.ndarray) -> list[np.ndarray]:
    """One copy of the image per region, black outside the region, not cropped.

    Args:
        image: uint8 (H, W, 3), RGB.
        regions: integers (H, W).

    Returns:
        uint8 (H, W, 3) images, in the order of the regions' numbers.
    """
    return [np.where((regions == number)[..., None], image, np.uint8(0)) for number in np.unique(regions)]


def name_regions(similarities: torch.Tensor, size: int, candidates: Collection[int]) -> list[int]:
    """The class of each region: that of the most similar word, if it is a candidate (as in the paper).

    Args:
        similarities: float32 (regions, words) cosines of masked images and words; the first `size` words are those of
            the vocabulary's classes, all others are for background.
        size: number of classes of the vocabulary.
        candidates: vocabulary indices (1..N) that the image may contain.

    Returns:
        Vocabulary indices; 0, background, where the most similar word is not a candidate.
    """
    words = [word + 1 for word in similarities.argmax(1).tolist()]
    return [word if word <= size and word in candidates else BACKGROUND for word in words]


def share_regions(similarities: torch.Tensor, scale: float, candidates: Collection[int]) -> list[int]:
    """The class of each region as in the released code: each class keeps one region, each region one class.

    Softmax over all words turns a region's cosines into probabilities. Each candidate class keeps only the region where
    its probability is largest; each region then gets the most probable class that kept it. A region whose most similar
    word is not a candidate may therefore get a class, and a class may lose its only region to another one. In a tie
    the first one wins.

    Args:
        similarities: float32 (regions, words) cosines, as in `name_regions`.
        scale: factor applied to the cosines before softmax.
        candidates: vocabulary indices (1..N) that the image may contain.

    Returns:
        Vocabulary indices; 0, background, where no class kept the region.
    """
    shares = (scale * similarities).softmax(1)
    words = [index - 1 for index in candidates]
    best, kept = shares.max(0), torch.zeros_like(shares)
    kept[best.indices[words], words] = best.values[words]
    left = kept.max(1)
    pairs = zip(left.values.tolist(), left.indices.tolist(), strict=True)
    return [word + 1 if share > 0 else BACKGROUND for share, word in pairs]


def _check(model: DiffusionModel, config: FreeSegDiffConfig) -> None:
    steps, most = len(model.alphas_cumprod), min(MAX_CLUSTERS, config.side**2)
    wrong = {
        f"timestep` {config.timestep}: give one from 0 to {steps - 1}": not 0 <= config.timestep < steps,
        f"side` {config.side}: give at least 1": config.side < 1,
        f"clusters` {config.clusters}: give 1 to {most}": config.side >= 1 and not 1 <= config.clusters <= most,
        f"restarts` {config.restarts}: give at least 1": config.restarts < 1,
    }
    for message, is_wrong in wrong.items():
        if is_wrong:
            raise SettingError(f"`freesegdiff.{message}")


def _choose_layers(config: FreeSegDiffConfig, layers: list[FeatureLayer]) -> list[FeatureLayer]:
    kinds = KINDS[config.features]
    known = sorted({layer.stride for layer in layers if layer.kind in kinds})
    if not config.strides or not set(config.strides) <= set(known):
        raise SettingError(
            f"`freesegdiff.strides` {config.strides}: give some of the strides at which this model has "
            f"{' or '.join(kinds)} features, {known}"
        )
    return [layer for layer in layers if layer.kind in kinds and layer.stride in config.strides]
