"""FreeSeg-Diff written plainly: all channels of the features, scikit-learn's K-means, one region at a time.

Nothing here comes from `pseudolabel.diffusion`, `pseudolabel.text`, `pseudolabel.methods` or `pseudolabel.refine`, save
the loaded parts of the models: it is what the fast path is checked against.
"""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydensecrf.densecrf import DenseCRF2D
from pydensecrf.utils import unary_from_labels
from sklearn.cluster import KMeans

from tests.plain.diffsegmenter import add_noise, encode_image, encode_text

ENDINGS = {"queries": ["attn2.to_q"], "resblock": ["resnets.#"], "attention": ["attentions.#"]}
ENDINGS["both"] = ENDINGS["resblock"] + ENDINGS["attention"]


@torch.inference_mode()
def points(model, config, image: Image.Image, noise: torch.Tensor | None) -> np.ndarray:
    """float64 (side * side, channels of all layers); the whole U-Net runs."""
    latent = encode_image(model, image, None)
    if noise is not None:
        latent = add_noise(model, latent, noise, config.timestep)
    maps = []

    def keep(_, inputs, output):
        output = output[0] if isinstance(output, tuple) else output
        if output.ndim == 3:
            side = round(output.shape[1] ** 0.5)
            output = output.transpose(1, 2).reshape(1, -1, side, side)
        if model.image_size // output.shape[-1] in config.factors:
            maps.append(F.interpolate(output.float(), (config.side, config.side), mode="bilinear")[0])

    handles = [
        module.register_forward_hook(keep)
        for name, module in model.unet.named_modules()
        if any(is_ending(ending, name) for ending in ENDINGS[config.features])
    ]
    model.unet(latent[None].to(model.unet.dtype), config.timestep, encode_text(model, ""))
    for handle in handles:
        handle.remove()
    return torch.cat(maps).flatten(1).T.double().numpy()


def is_ending(ending: str, name: str) -> bool:
    """Whether a module's path ends so; `#` stands for a number."""
    own, wanted = name.split(".")[-2:], ending.split(".")
    return len(own) == 2 and all(x == y or (y == "#" and x.isdigit()) for x, y in zip(own, wanted, strict=True))


def cluster(features: np.ndarray, starts: list[list[int]]) -> np.ndarray:
    """The best of several K-means, each from the points with the given numbers: (n,) cluster numbers."""
    runs = [KMeans(len(start), init=features[start], n_init=1).fit(features) for start in starts]
    return min(runs, key=lambda run: run.inertia_).labels_


@torch.inference_mode()
def name_region(clip, processor, picture: Image.Image, texts: list[str]) -> tuple[int, float]:
    """Number and cosine of the text that is nearest to a picture."""
    best, best_cosine = -1, -2.0
    seen = clip.get_image_features(**processor(images=picture, return_tensors="pt"))
    for number, text in enumerate(texts):
        read = clip.get_text_features(**processor(text=text, return_tensors="pt", truncation=True))
        cosine = float(F.cosine_similarity(as_tensor(seen), as_tensor(read)))
        if cosine > best_cosine:
            best, best_cosine = number, cosine
    return best, best_cosine


def as_tensor(features) -> torch.Tensor:
    return features if isinstance(features, torch.Tensor) else features.pooler_output


def segment(config, image: Image.Image, clusters: np.ndarray, clip, processor, words: list[str], known: int, classes):
    """uint8 (H, W); `words` are the vocabulary's `known` classes and, behind them, what is background."""
    enlarged = Image.fromarray(clusters.astype(np.uint8)).resize(image.size, Image.Resampling.NEAREST)
    regions = np.asarray(enlarged)
    names, cosines = {}, {}
    for number in range(config.clusters):
        mask = Image.fromarray(255 * (regions == number).astype(np.uint8))
        picture = Image.composite(image, Image.new("RGB", image.size), mask)
        word, cosines[number] = name_region(clip, processor, picture, [config.template.format(w) for w in words])
        names[number] = word + 1 if word < known and word + 1 in classes and (regions == number).any() else 0
    if config.one_cluster_per_class:
        for number, name in list(names.items()):
            if any(other == name and cosines[n] > cosines[number] for n, other in names.items()):
                names[number] = 0
    return refine(config, np.array(image), regions, names)


def refine(config, image: np.ndarray, regions: np.ndarray, names: dict[int, int]) -> np.ndarray:
    """uint8 (H, W) labels of the regions' names, before and after DenseCRF."""
    labels = np.zeros(regions.shape, np.uint8)
    if config.refinement == "per_cluster":
        for number, name in names.items():
            if name != 0:
                labels[crf(config, image, (regions == number).astype(int)) == 1] = name
        return labels
    for number, name in names.items():
        labels[regions == number] = name
    if config.refinement == "multi_label":
        values, numbered = np.unique(labels, return_inverse=True)
        return values[crf(config, image, numbered.reshape(labels.shape))]
    return labels


def crf(config, image: np.ndarray, numbered: np.ndarray) -> np.ndarray:
    """pydensecrf's own way with hard labels 0, 1, ...; these are its parameters' names."""
    height, width = numbered.shape
    count = numbered.max() + 1
    if count == 1 and not (numbered == 1).any():
        return numbered
    field = DenseCRF2D(width, height, max(count, 2))
    field.setUnaryEnergy(unary_from_labels(numbered, max(count, 2), config.certainty, zero_unsure=False))
    kernels = config.crf
    field.addPairwiseGaussian(kernels.gaussian_sxy, kernels.gaussian_weight)
    field.addPairwiseBilateral(kernels.bilateral_sxy, kernels.bilateral_srgb, image, kernels.bilateral_weight)
    return np.argmax(field.inference(kernels.iterations), 0).reshape(height, width)
