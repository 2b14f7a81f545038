"""Settings of DiffSeg, its K-means baselines and DiffCut."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class DiffSegConfig:
    """Settings of DiffSeg (Tian et al. 2024); docs/methods.md compares paper and released code.

    Args:
        timestep: timestep input of the U-Net; no noise is added, but for `ncut`.
        self_layers: numbers of the self-attention layers that are aggregated, as `probe` lists them; all, if there are
            none. For `ncut`, the one whose output is cut; if there is none, the last one on the way down.
        weights: each self-attention map's weight is proportional to its side: layers are averaged `per_resolution`
            first (the released code), or each layer is weighted by itself, `per_tensor` (the paper).
        grouping: `merge` is DiffSeg's iterative merging, `kmeans` its K-means baseline on the same vectors; `ncut` is
            DiffCut (Couairon et al. 2024), recursive normalised cuts of features with noise; set `timestep` to 50.
        anchors: M of the M x M grid of anchor points.
        iterations: passes of merging, the first one over all maps.
        threshold: tau; two maps are merged if their symmetric KL divergence is smaller.
        merging: `released` lets a seed average over proposals that other seeds already have, `strict` (Algorithm 1)
            does not.
        precision: number format in which the divergences of the first pass are compared. Logarithms have a floor in
            both; in the released float16 they do not.
        clusters: number of clusters of K-means; 0 is the number of the image's labels, with background if the
            vocabulary has it.
        cut_power: for `ncut`, exponent of the features' similarity.
        cut_threshold: for `ncut`, a part whose best normalised cut is at least this is not cut.
        fit: `crop` segments the centre square and ignores the rest (255), `stretch` segments the entire image, resized
            to a square.
        semantic: name the masks by cross-attention (Semantic DiffSeg) and merge masks of the same name.
    """

    timestep: int = 300
    self_layers: list[int] = field(default_factory=list)
    weights: Literal["per_resolution", "per_tensor"] = "per_resolution"
    grouping: Literal["merge", "kmeans", "ncut"] = "merge"
    anchors: int = 16
    iterations: int = 3
    threshold: float = 1.0
    merging: Literal["released", "strict"] = "released"
    precision: Literal["float32", "float16"] = "float32"
    clusters: int = 6
    cut_power: float = 10.0
    cut_threshold: float = 0.5
    fit: Literal["crop", "stretch"] = "stretch"
    semantic: bool = False
