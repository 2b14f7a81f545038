"""Every rule against a loop in plain Python, and what the loops cannot say."""

import pytest
import torch

from pseudolabel.text.class_rules import (
    classes_like_nouns,
    classes_of_image,
    classes_of_minima,
    classes_of_spellings,
    nearest_classes,
)
from pseudolabel.vocabulary import ClassEntry, Vocabulary

SEEDS = range(20)
VOCABULARY = Vocabulary(
    "few",
    (
        ClassEntry("diningtable", "table", ("desk",)),
        ClassEntry("bus", "buses", ("coach",)),
        ClassEntry("truck", "truck", ("lorry",)),
        ClassEntry("fire hydrant", "hydrant"),
        ClassEntry("person", "people", ("man", "baby")),
        ClassEntry("dog", "dog"),
    ),
)


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scale", [100.0, 14.3])
def test_relative_is_a_share_of_the_largest_logit(seed: int, scale: float) -> None:
    cosines = 0.2 + 0.05 * draw(seed, 12)
    logits = [scale * cosine for cosine in cosines.tolist()]
    expected = tuple(n for n, logit in enumerate(logits, 1) if logit >= 0.9 * max(logits))
    assert classes_of_image(cosines, "relative", 0.9) == expected
    assert 1 < len(expected) < 12


@pytest.mark.parametrize("seed", SEEDS)
def test_absolute_is_a_cosine(seed: int) -> None:
    cosines = draw(seed, 12)
    expected = tuple(n for n, cosine in enumerate(cosines.tolist(), 1) if cosine > 0.6)
    assert classes_of_image(cosines, "absolute", 0.6) == expected


def test_relative_always_keeps_the_best() -> None:
    cosines = torch.tensor([-0.3, -0.2, -0.21])
    assert classes_of_image(cosines, "relative", 0.97) == (2,)
    assert classes_of_image(cosines, "relative", 0.9) == (2, 3)
    assert classes_of_image(cosines, "relative", 0.5) == (1, 2, 3)
    assert classes_of_image(torch.tensor([0.0, -0.2]), "relative", 0.97) == (1,)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_class_like_any_noun(seed: int) -> None:
    cosines = draw(seed, 4, 8)
    expected = set()
    for row in cosines.tolist():
        expected |= {n for n, cosine in enumerate(row, 1) if cosine > 0.8}
    assert classes_like_nouns(cosines, 0.8) == tuple(sorted(expected))


@pytest.mark.parametrize("seed", SEEDS)
def test_nearest_within_the_mean_distance(seed: int) -> None:
    distances = draw(seed, 5, 3) * draw(seed + 100, 5, 1)
    rows = distances.tolist()
    mean = sum(sum(row) for row in rows) / sum(len(row) for row in rows)
    expected = {row.index(min(row)) + 1 for row in rows if min(row) <= mean}
    assert nearest_classes(distances) == tuple(sorted(expected))


def test_nearest_drops_what_is_far_from_every_class() -> None:
    """The noun's own mean would not."""
    assert nearest_classes(torch.tensor([[0.1, 0.5], [0.8, 0.7]])) == (1,)
    assert nearest_classes(torch.tensor([[0.8, 0.7]])) == (2,)


@pytest.mark.parametrize("seed", SEEDS)
def test_nearest_within_the_mean_of_minima(seed: int) -> None:
    distances = draw(seed, 5, 6)
    rows = distances.tolist()
    mean = sum(min(row) for row in rows) / len(rows)
    expected = {row.index(min(row)) + 1 for row in rows if min(row) <= mean}
    assert classes_of_minima(distances) == tuple(sorted(expected))


@pytest.mark.parametrize("count", range(1, 8))
def test_equal_minima_are_within_their_mean(count: int) -> None:
    assert classes_of_minima(torch.tensor([[0.1, 0.7]] * count)) == (1,)


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("table", (1,)),
        ("dining table", (1,)),
        ("Dining-Table", (1,)),
        ("kitchen desk", (1,)),
        ("bus", (2,)),
        ("buses", (2,)),
        ("coaches", (2,)),
        ("lorries", (3,)),
        ("fire truck", (3,)),
        ("red fire hydrant", (4,)),
        ("babies", (5,)),
        ("people", (5,)),
        ("dogs", (6,)),
        ("bus stop", ()),
        ("dog house", ()),
        ("hot air balloon", ()),
        ("", ()),
    ],
)
def test_spellings(noun: str, expected: tuple[int, ...]) -> None:
    assert classes_of_spellings([noun], VOCABULARY) == expected


def test_spellings_of_several_nouns() -> None:
    assert classes_of_spellings(["man", "sky", "dog", "baby"], VOCABULARY) == (5, 6)
    assert classes_of_spellings([], VOCABULARY) == ()
