"""FreeSeg-Diff written plainly: all channels of the features, scikit-learn's K-means, one region at a time.

Nothing here comes from `pseudolabel.diffusion`, `pseudolabel.text`, `pseudolabel.methods` or `pseudolabel.crf`, save
the loaded parts of the models: it is what the fast path is checked against.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydensecrf.densecrf import DenseCRF2D
from pydensecrf.utils import unary_from_labels
from sklearn.cluster import KMeans

from tests.plain.diffsegmenter import add_noise, encode_image, encode_text, pool_text, run_unet

ENDINGS = {"queries": ["attn2.to_q"], "resblock": ["resnets.#"], "attention": ["attentions.#"]}
ENDINGS["both"] = ENDINGS["resblock"] + ENDINGS["attention"]


@torch.inference_mode()
def points(model, config, image: Image.Image, noise=None, posterior_noise=None) -> np.ndarray:
    """float64 (side * side, channels of all layers); the whole U-Net runs."""
    latent = encode_image(model, image, posterior_noise)
    if noise is not None:
        latent = add_noise(model, latent, noise, config.timestep)
    maps = []

    def keep(_, inputs, output):
        output = output[0] if isinstance(output, tuple) else output
        if output.ndim == 3:
            side = round(output.shape[1] ** 0.5)
            output = output.transpose(1, 2).reshape(1, -1, side, side)
        if model.image_size // output.shape[-1] in config.strides:
            maps.append(F.interpolate(output.float(), (config.side, config.side), mode="bilinear")[0])

    handles = [
        module.register_forward_hook(keep)
        for name, module in model.unet.named_modules()
        if any(is_ending(ending, name) for ending in ENDINGS[config.features])
    ]
    noised = latent[None].to(model.unet.dtype)
    run_unet(model, noised, config.timestep, encode_text(model, ""), pool_text(model, ""))
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
def cosines_of(clip, processor, crop: Image.Image, texts: list[str]) -> list[float]:
    seen = clip.get_image_features(**processor(images=crop, return_tensors="pt"))
    read = [clip.get_text_features(**processor(text=text, return_tensors="pt", truncation=True)) for text in texts]
    return [float(F.cosine_similarity(as_tensor(seen), as_tensor(one))) for one in read]


def name_as_in_the_paper(cosines: dict[int, list[float]], known: int, classes) -> dict[int, int]:
    """The nearest word of each region, if it is one of the image's classes, else 0."""
    nearest = {number: own.index(max(own)) + 1 for number, own in cosines.items()}
    return {number: word if word <= known and word in classes else 0 for number, word in nearest.items()}


def name_as_released(cosines: dict[int, list[float]], scale: float, classes) -> dict[int, int]:
    """Shares by softmax, words that are no candidates struck out; classes choose their region, regions their class."""
    shares = {}
    for number, own in cosines.items():
        total = sum(math.exp(scale * (cosine - max(own))) for cosine in own)
        every = [math.exp(scale * (cosine - max(own))) / total for cosine in own]
        shares[number] = [share if word + 1 in classes else 0.0 for word, share in enumerate(every)]
    for name in classes:
        column = {number: own[name - 1] for number, own in shares.items()}
        keeper = max(column, key=lambda number: column[number])
        for number, own in shares.items():
            if number != keeper:
                own[name - 1] = 0.0
    return {number: own.index(max(own)) + 1 if max(own) > 0 else 0 for number, own in shares.items()}


def enlarge(config, clusters: np.ndarray, width: int, height: int) -> np.ndarray:
    if config.enlarge == "nearest_exact":
        return np.asarray(Image.fromarray(clusters.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST))
    rows, columns = clusters.shape
    return np.array(
        [
            [clusters[math.floor(y * rows / height), math.floor(x * columns / width)] for x in range(width)]
            for y in range(height)
        ]
    )


def as_tensor(features) -> torch.Tensor:
    return features if isinstance(features, torch.Tensor) else features.pooler_output


def segment(config, image: Image.Image, clusters: np.ndarray, clip, processor, words: list[str], known: int, classes):
    """uint8 (H, W); `words` are the vocabulary's `known` classes and, behind them, what is background."""
    regions = enlarge(config, clusters, *image.size)
    cosines = {}
    for number in sorted(set(regions.flatten().tolist())):
        mask = Image.fromarray(255 * (regions == number).astype(np.uint8))
        crop = Image.composite(image, Image.new("RGB", image.size), mask)
        cosines[number] = cosines_of(clip, processor, crop, [config.template.format(w) for w in words])
    if config.naming == "released":
        names = name_as_released(cosines, clip.logit_scale.exp().item(), classes)
    else:
        names = name_as_in_the_paper(cosines, known, classes)
    return refine(config, np.array(image), regions, names)


def refine(config, image: np.ndarray, regions: np.ndarray, names: dict[int, int]) -> np.ndarray:
    """uint8 (H, W) labels of the regions' names, before and after DenseCRF."""
    labels = np.zeros(regions.shape, np.uint8)
    if config.refinement == "per_cluster":
        for number, name in names.items():
            if name != 0:
                claimed = crf(config, image, (regions == number).astype(int)) == 1
                labels = np.where((labels == 0) & claimed, np.uint8(name), labels)  # the first one keeps a pixel
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
