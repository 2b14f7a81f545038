"""Settings of DiffSegmenter and of its ELBO baseline."""

from dataclasses import dataclass, field
from typing import Literal

# Layer weights of DiffSegmenter on Stable Diffusion: the paper's .3/.5/.1/.1 for maps of 8/16/32/64 at 512 pixels.
SD_LEVEL_WEIGHTS = {64: 0.3, 32: 0.5, 16: 0.1, 8: 0.1}


@dataclass(frozen=True)
class DiffSegmenterConfig:
    """Settings of DiffSegmenter (Wang et al. 2023); docs/methods.md compares paper and released code.

    Args:
        timesteps: noise levels at which attention is read, each in one forward pass.
        prompt: one prompt `per_class`, or one for all classes of an image (`joint`): fewer forward passes, and classes
            compete for attention. Where the classes do not fit into the text encoder's tokens, there is one per class.
        joint_tail: words after the last class of a joint prompt.
        level_weights: weight of the cross-attention maps of each stride (image side / map side), Eq. 5; or by
            `resolution`, where a layer's weight is 1 / its number of positions, for checkpoints without tuned weights.
            Of the default, SDXL and SSD-1B use what is for their strides, .5 and .1 for 32 and 16, which is unmeasured.
        cross_layers: numbers of the cross-attention layers that are read, as `probe` lists them; all of the
            weighted strides, if there are none.
        cross_heads: heads of cross-attention that are averaged; all, if there are none.
        head_weights: heads of cross-attention count alike (`mean`), or at every position by their share in the layer's
            `output` (GoCA).
        self_attention: which self-attention layers complete the map: those of the `highest` resolution, `all`, `none`,
            those of `self_attention_strides` (`strides`), or `self_layers` (`layers`).
        self_attention_strides: strides of the self-attention layers for `self_attention: strides`.
        self_layers: numbers of the self-attention layers for `self_attention: layers`, as `probe` lists them.
        self_heads: heads of self-attention that are averaged; all, if there are none.
        affinity: what completes the map: `attention` itself; its entries to a `power`, which sharpens it; its `peaks`
            (CLIPer); or its entries after the `entropy` step of iSeg, which removes small ones.
        affinity_value: the power; the smallest entry that is a peak, below 1; or the size of the entropy step. 0 is 2
            for the power, .1 for peaks and .015 for the entropy step.
        iterations: passes of the affinity over the map.
        level_norm: min-max normalise each resolution's map `after` upsampling, `before` it, or not (`none`, as in the
            paper's text); or divide it by its `sum` before upsampling.
        class_tokens: which tokens of a class name are read and emphasised: the `mean` of all of them, the `last` one
            alone, or `last_word` (the released code), which reads the last one and emphasises all of the last word.
        modifiers: `ing_next` averages in a word ending in "ing" right after the class name; `ing_released` does it as
            the released code, which counts punctuation as part of words and reads the one token after the name;
            `none` does not.
        emphasis: the class tokens' text embeddings move away from the empty prompt's (`relative`) or are multiplied
            (`absolute`).
        class_weight: by this factor; compel's `++` is a relative 1.21.
        timestep_average: `mean_of_products` (Eq. 7 per timestep) or `product_of_means`.
        vae: encode the image to the posterior's `mean` or draw a `sample`.
        noise: draw noise once `per_image` and share it between timesteps, or `per_timestep`.
    """

    timesteps: list[int] = field(default_factory=lambda: [1, 50, 100, 150])
    prompt: Literal["per_class", "joint"] = "per_class"
    joint_tail: str = ""
    level_weights: dict[int, float] | Literal["resolution"] = field(default_factory=lambda: dict(SD_LEVEL_WEIGHTS))
    cross_layers: list[int] = field(default_factory=list)
    cross_heads: list[int] = field(default_factory=list)
    head_weights: Literal["mean", "output"] = "mean"
    self_attention: Literal["highest", "all", "none", "strides", "layers"] = "highest"
    self_attention_strides: list[int] = field(default_factory=list)
    self_layers: list[int] = field(default_factory=list)
    self_heads: list[int] = field(default_factory=list)
    affinity: Literal["attention", "power", "peaks", "entropy"] = "attention"
    affinity_value: float = 0.0
    iterations: int = 1
    level_norm: Literal["after", "before", "none", "sum"] = "after"
    class_tokens: Literal["mean", "last", "last_word"] = "mean"
    modifiers: Literal["ing_next", "ing_released", "none"] = "ing_next"
    emphasis: Literal["relative", "absolute"] = "relative"
    class_weight: float = 1.21
    timestep_average: Literal["mean_of_products", "product_of_means"] = "mean_of_products"
    vae: Literal["mean", "sample"] = "mean"
    noise: Literal["per_image", "per_timestep"] = "per_image"


@dataclass(frozen=True)
class ElboConfig:
    """Settings of the ELBO baseline (Eq. 3 of DiffSegmenter): per pixel, the class that denoises best.

    Args:
        timesteps: noise levels; the samples use them in turn.
        samples: draws of noise per image, each at one timestep and shared by all classes.
        decision: a class's score is its `softmax` among the image's classes and the empty prompt (background), or 1
            where it is the `argmax` and 0 elsewhere.
        temperature: divides the log-likelihoods before the softmax.
    """

    timesteps: list[int] = field(default_factory=lambda: [100, 300, 500, 700, 900])
    samples: int = 50
    decision: Literal["softmax", "argmax"] = "softmax"
    temperature: float = 0.01
