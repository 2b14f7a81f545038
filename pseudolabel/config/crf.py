"""Settings of DenseCRF."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class CrfConfig:
    """DenseCRF (Kraehenbuehl and Koltun 2011) over background and the image's classes.

    The defaults are those of CLIP-ES for VOC, the preset `clip-es`.

    Args:
        iterations: mean-field steps; 0 skips the CRF and uses the largest score (the preset `none`).
        gaussian_sxy: sigma in pixels of the smoothness kernel.
        gaussian_weight: weight of the smoothness kernel.
        bilateral_sxy: spatial sigma in pixels of the appearance kernel.
        bilateral_srgb: colour sigma in grey levels of the appearance kernel.
        bilateral_weight: weight of the appearance kernel.
        background: score of background: `power` is (1 - largest CAM) ** value, `threshold` is the value itself.
        background_value: exponent or threshold.
        ignore_below: pixels whose winning probability is smaller become 255; 0 keeps every pixel.
        image: the image in the appearance kernel: `rgb`, or `wrapped`, CLIP-ES's mean-subtracted BGR that overflows.
        engine: `scipy` and `pydensecrf` run on processor cores, one image on each; the latter is the authors' C++, from
            the extra `crf`. `torch` runs on the model's device, many images at once; images of more than 4 million
            pixels still use `scipy`. All give the same labels. `auto` is `torch` on CUDA devices and `scipy` elsewhere.
    """

    iterations: int = 10
    gaussian_sxy: float = 1.0
    gaussian_weight: float = 3.0
    bilateral_sxy: float = 67.0
    bilateral_srgb: float = 3.0
    bilateral_weight: float = 4.0
    background: Literal["power", "threshold"] = "power"
    background_value: float = 1.0
    ignore_below: float = 0.95
    image: Literal["rgb", "wrapped"] = "rgb"
    engine: Literal["auto", "pydensecrf", "scipy", "torch"] = "auto"
