"""Rules that choose classes from an image or from its captions' nouns.

All take scores of the vocabulary's classes in their order and give sorted vocabulary indices, 1..N.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch

from pseudolabel.vocabulary import Vocabulary

Classes = tuple[int, ...]


def classes_of_image(cosines: torch.Tensor, rule: Literal["relative", "absolute"], threshold: float) -> Classes:
    """Classes whose sentence is like the image.

    Args:
        cosines: float (classes,), of the image and each class's sentence.
        rule: `relative` takes those of at least `threshold` times the largest cosine (DiffSegmenter's released code;
            CLIP's logits are cosines times a constant), `absolute` those above `threshold` (the paper's text). Where
            even the largest is negative, `relative` allows the same share of it downwards.
        threshold: see `rule`.
    """
    if rule == "absolute":
        return indices_of(cosines > threshold)
    best = cosines.max()
    return indices_of(cosines >= best - (1 - threshold) * best.abs())


def classes_like_nouns(cosines: torch.Tensor, threshold: float) -> Classes:
    """Classes with a noun whose cosine is above the threshold; float (nouns, classes)."""
    return indices_of((cosines > threshold).any(0))


def nearest_classes(distances: torch.Tensor) -> Classes:
    """Each noun's nearest class, unless it is farther than nouns and classes are on average (FreeSeg-Diff, Sec. III-A).

    The paper drops a noun whose distance is "above the average distances (to all classes)". Of the noun's own distances
    the smallest is never above their average, so the average is taken over all of the captions' nouns.

    Args:
        distances: float (nouns, classes), between text embeddings.
    """
    return _nearest_within(distances, distances.double().mean())


def classes_of_minima(distances: torch.Tensor) -> Classes:
    """Each noun's nearest class, unless it is farther than the nouns' nearest ones on average (FreeSeg-Diff's code).

    Args:
        distances: float (nouns, classes), between text embeddings.
    """
    return _nearest_within(distances, distances.double().amin(1).mean())


def _nearest_within(distances: torch.Tensor, bound: torch.Tensor) -> Classes:
    smallest, nearest = distances.min(1)
    chosen = torch.zeros(distances.shape[1], dtype=torch.bool, device=distances.device)
    chosen[nearest[smallest <= bound]] = True  # `bound` in float64, as a mean of equal numbers must not fall below them
    return indices_of(chosen)


def classes_of_spellings(nouns: Iterable[str], vocabulary: Vocabulary) -> Classes:
    """Classes that nouns are names, prompt names or synonyms of, in any spelling and in the plural.

    A compound means the class that its longest ending names: a `fire truck` is a truck, and a `bus stop` is no bus.

    Args:
        nouns: lemmas; compounds as words with spaces between.
        vocabulary: the classes with their synonyms.
    """
    found = (_of_ending(noun.split(), vocabulary) for noun in nouns)
    return tuple(sorted({index for index in found if index is not None}))


def _of_ending(words: Sequence[str], vocabulary: Vocabulary) -> int | None:
    for start in range(len(words)):
        for spelling in _singulars(" ".join(words[start:])):
            index = vocabulary.find(spelling)
            if index is not None:
                return index
    return None


def _singulars(noun: str) -> list[str]:
    """The noun itself, then what it may be the plural of, where the pipeline has not seen it."""
    endings = [("ies", "y"), ("es", ""), ("s", "")]
    return [noun, *(noun.removesuffix(plural) + singular for plural, singular in endings if noun.endswith(plural))]


def indices_of(chosen: torch.Tensor) -> Classes:
    """Vocabulary indices of the chosen ones; bool (classes,)."""
    return tuple(int(place) + 1 for place in chosen.nonzero().flatten())
