"""Settings of FreeSeg-Diff."""

from dataclasses import dataclass, field
from typing import Literal

from pseudolabel.config.crf import CrfConfig


@dataclass(frozen=True)
class FreeSegDiffConfig:
    """Settings of FreeSeg-Diff (Corradini et al. 2024); docs/methods.md compares paper and released code.

    Args:
        timestep: timestep input of the U-Net.
        noise: whether noise of that level is added to the latent (the released code).
        vae: encode the image to the posterior's `mean` or draw a `sample` (the released code).
        features: what is clustered: cross-attention's `queries`, residual blocks' outputs (`resblock`), attention
            blocks' outputs (`attention`), or residual blocks and attention (`both`).
        backbone: hub id or folder of a vision transformer (CLIP, ViT, DINOv2) whose patch tokens are clustered instead
            of the diffusion model's features; empty for none.
        strides: strides (image side / map side) of the layers whose features are used; 32 is 16 x 16 at 512 pixels, and
            32 x 32 at SDXL's 1024.
        side: features of all layers are resized to a square of this side before they are concatenated.
        clusters: K of K-means.
        restarts: number of K-means runs, of which the best is kept.
        clip: hub id or folder of the CLIP checkpoint that names regions, or `shapes`.
        template: sentence with one `{}` for the class; the released code has the bare name, `{}`.
        background_words: whether the vocabulary's words for background, such as grass, compete for regions. This is
            our addition; the paper has classes only.
        naming: a region gets the candidate class that is nearest of all words, else background (`paper`); or regions
            are assigned to candidates by softmax, at most one to each class (`released`).
        enlarge: how clusters are enlarged to the image's size: each pixel gets the cluster at its centre
            (`nearest_exact`) or at its upper left corner (`nearest`, the released code), as torch's modes of these
            names do.
        refinement: DenseCRF over all regions at once (`multi_label`), for each cluster by itself (`per_cluster`, the
            released code; a pixel that several clusters claim gets the first one), or `none`.
        certainty: probability of a pixel's own label in the CRF's input.
        crf: kernels and steps of the CRF; its settings of background and ignored pixels are not used.
    """

    timestep: int = 0
    noise: bool = False
    vae: Literal["mean", "sample"] = "mean"
    features: Literal["queries", "resblock", "attention", "both"] = "queries"
    backbone: str = ""
    strides: list[int] = field(default_factory=lambda: [32])
    side: int = 32
    clusters: int = 4
    restarts: int = 10
    clip: str = "openai/clip-vit-base-patch32"
    template: str = "a photo of a {}"
    background_words: bool = True
    naming: Literal["paper", "released"] = "paper"
    enlarge: Literal["nearest_exact", "nearest"] = "nearest_exact"
    refinement: Literal["multi_label", "per_cluster", "none"] = "multi_label"
    certainty: float = 0.7
    crf: CrfConfig = field(
        default_factory=lambda: CrfConfig(
            gaussian_sxy=20.0, gaussian_weight=5.0, bilateral_sxy=20.0, bilateral_srgb=20.0, bilateral_weight=100.0
        )
    )
