import json
from pathlib import Path

import numpy as np
import pytest

from pseudolabel.evaluation.label_scores import LabelScores
from pseudolabel.sources.label_file import load_label_file
from pseudolabel.sources.labels import LabelReader
from pseudolabel.vocabulary import load_vocabulary

LISTS = "val_predicted_classes.json"
TAGCLIP = "val_tagclip.json"


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_a_plain_count(seed: int) -> None:
    generator = np.random.default_rng(seed)
    classes = 6
    draws = [[set(np.flatnonzero(generator.random(classes) < 0.3) + 1) for _ in range(30)] for _ in range(2)]
    pairs = list(zip(*draws, strict=True))
    scores = LabelScores.count(pairs, classes)
    both = sum(index in guess and index in truth for guess, truth in pairs for index in range(1, classes + 1))
    guessed, true = (sum(len(found) for found in found_of) for found_of in draws)
    precision, recall = both / guessed, both / true
    assert scores.micro == pytest.approx((precision, recall, 2 * precision * recall / (precision + recall)))
    for index in range(1, classes + 1):
        hits = sum(index in guess and index in truth for guess, truth in pairs)
        guessed, true = (sum(index in found for found in found_of) for found_of in draws)
        assert scores.by_class[index - 1] == pytest.approx([hits / guessed, hits / true, 2 * hits / (guessed + true)])


def test_a_zero_denominator() -> None:
    scores = LabelScores.count([((1,), ()), ((), (2,))], 3)
    np.testing.assert_array_equal(scores.by_class, [[0, np.nan, 0], [np.nan, 0, 0], [np.nan] * 3])
    assert scores.micro == (0, 0, 0)
    assert np.isnan(LabelScores.count([], 3).micro).all()


def test_the_report_is_plain_json() -> None:
    report = LabelScores.count([((1, 2), (1,)), ((2,), (2,))], 3).to_dict(("cat", "dog", "cow"))
    assert json.loads(json.dumps(report)) == report
    assert report["per_class"]["dog"] == {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "images": 1}
    assert report["per_class"]["cow"] == {"precision": None, "recall": None, "f1": None, "images": 0}
    assert (report["precision"], report["recall"]) == (2 / 3, 1.0)


@pytest.fixture
def voc_lists(voc_sample: Path) -> Path:
    """The lists of VOC 2012 beside the sample: true labels, and those of DiffSegmenter's authors."""
    folder = voc_sample.parent / "voc12_lists"
    if not (folder / LISTS).is_file():
        pytest.skip(f"no {LISTS} in {folder}")
    return folder


@pytest.mark.parametrize(
    ("union", "precision", "recall"),
    [
        ("image_similarity+text_similarity", 0.845, 0.741),
        ("image_similarity+synonym_matching", 0.834, 0.839),
        ("image_similarity+text_similarity+synonym_matching", 0.826, 0.862),
    ],
)
def test_the_published_lists_score_as_measured(voc_lists: Path, union: str, precision: float, recall: float) -> None:
    scores = score_lists(voc_lists, union)
    assert tuple(round(score, 3) for score in scores.micro[:2]) == (precision, recall)


def test_synonyms_find_persons(voc_lists: Path) -> None:
    person = load_vocabulary("voc").index("person") - 1
    assert round(score_lists(voc_lists, "image_similarity+text_similarity").by_class[person, 1], 2) == 0.34
    assert score_lists(voc_lists, "image_similarity+synonym_matching").by_class[person, 1] > 0.7


@pytest.mark.parametrize(
    ("union", "expected"),
    [("tagclip", (0.925, 0.771, 0.841)), ("tagclip+synonym_matching", (0.840, 0.865, 0.853))],
)
def test_tagclips_list_scores_as_measured(
    voc_lists: Path, tmp_path: Path, union: str, expected: tuple[float, ...]
) -> None:
    """Lists are united within one file, so both authors' lists are put into one."""
    if not (voc_lists / TAGCLIP).is_file():
        pytest.skip(f"no {TAGCLIP} in {voc_lists}")
    lists = [json.loads((voc_lists / name).read_text()) for name in (LISTS, TAGCLIP)]
    together = tmp_path / "lists.json"
    together.write_text(json.dumps(lists[0] | lists[1]))
    scores = score_lists(voc_lists, union, together)
    assert tuple(round(score, 3) for score in scores.micro) == expected


def score_lists(folder: Path, union: str, lists: Path | None = None) -> LabelScores:
    vocabulary = load_vocabulary("voc")
    reader = LabelReader(vocabulary)
    predicted, _ = load_label_file(f"{lists or folder / LISTS}#{union}", len(vocabulary))
    true, _ = load_label_file(str(folder / "image_labels.json"), len(vocabulary))
    pairs = [
        (reader.read_all(predicted[image], "predicted"), reader.read_all(true[image], "true")) for image in predicted
    ]
    assert len(pairs) == 1449
    assert not any(problem for guess, truth in pairs for _, problem in (guess, truth))
    return LabelScores.count([(guess[0], truth[0]) for guess, truth in pairs], len(vocabulary))
