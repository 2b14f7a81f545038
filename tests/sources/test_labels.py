import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudolabel.sources.labels import LabelReader
from pseudolabel.vocabulary import Vocabulary, load_vocabulary

VOC = load_vocabulary("voc")
CAT, CAT_AND_BUS = np.eye(20)[7], np.eye(20)[[5, 7]].sum(0)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["cat", "aeroplane"], (1, 8)),
        (["cat", "kitten", 7], (8,)),
        ("dog; cat|person,cat", (8, 12, 15)),
        (" Dining Table ", (11,)),
        ([0, 19], (1, 20)),
        ("0,19", (1, 20)),
        ("7", (8,)),
        (14, (15,)),
        ([7.0, 5], (6, 8)),
        ("3.0", (4,)),
        (3.0, (4,)),
        (np.int64(3), (4,)),
        (np.array(["cat", "dog"]), (8, 12)),
        ("['cat', 'dog']", (8, 12)),
        ('["cat", "dog"]', (8, 12)),
        ("['cat' 'dog']", (8, 12)),
        ("{'cat', 'dog'}", (8, 12)),
        ("[cat; dining table]", (8, 11)),
        ("[5 7]", (6, 8)),
        ("5 7", (6, 8)),
        ("[]", ()),
        (float("nan"), ()),
        ([], ()),
        ("", ()),
        (" ; ", ()),
        (None, ()),
    ],
)
def test_every_way_to_write_labels(labels: object, classes: tuple[int, ...]) -> None:
    assert LabelReader(VOC).read(labels, "here") == (classes, None)


@pytest.mark.parametrize("dtype", [int, np.uint8, float, np.float32, bool])
@pytest.mark.parametrize(("vector", "classes"), [(CAT, (8,)), (CAT_AND_BUS, (6, 8)), (0 * CAT, ())])
def test_one_hot_vectors_of_any_type(dtype: type, vector: np.ndarray, classes: tuple[int, ...]) -> None:
    typed = vector.astype(dtype)
    for labels in (typed, typed.tolist(), str(typed.tolist()), str(typed), [*typed]):
        assert LabelReader(VOC).read(labels, "here") == (classes, None)


TWO, ONE = Vocabulary("two", VOC.classes[:2]), Vocabulary("one", VOC.classes[:1])


@pytest.mark.parametrize(
    ("vocabulary", "labels", "classes"),
    [
        (TWO, [0], (1,)),
        (TWO, [1], (2,)),
        (TWO, [0, 0], ()),
        (TWO, [1, 1], (1, 2)),
        (TWO, [True, False], (1,)),
        (TWO, [False, True], (2,)),
        (ONE, [1], (1,)),
        (ONE, 1, (1,)),
        (ONE, [True], (1,)),
        (ONE, False, ()),
        (ONE, [], ()),
    ],
)
def test_one_hot_vectors_of_one_or_two_classes(
    vocabulary: Vocabulary, labels: object, classes: tuple[int, ...]
) -> None:
    assert LabelReader(vocabulary).read(labels, "here") == (classes, None)


@pytest.mark.parametrize(
    ("vocabulary", "labels"),
    [(TWO, [0, 1]), (TWO, [1.0, 0.0]), (TWO, "0,1"), (TWO, "[1, 0]"), (ONE, [0]), (ONE, 0), (ONE, "0"), (ONE, 0.0)],
)
def test_what_could_be_indices_or_a_vector_is_not_guessed(vocabulary: Vocabulary, labels: object) -> None:
    classes, problem = LabelReader(vocabulary).read(labels, "here")
    assert classes == ()
    assert problem is not None
    assert problem.status == "unclear_labels"
    assert "as indices or as a one-hot vector" in str(problem)
    assert "write names ([] for none), or true and false" in str(problem)


def test_the_union_of_several_places() -> None:
    reader = LabelReader(VOC)
    assert reader.read_all(["cat", [5, 7], CAT], "here") == ((6, 8), None)
    assert reader.read_all([], "here") == ((), None)
    classes, problem = reader.read_all(["cat", "hors"], "here")
    assert classes == ()
    assert problem is not None
    assert "unknown class 'hors'" in str(problem)


@pytest.mark.parametrize(
    ("labels", "status", "reason"),
    [
        (["cat", "hors"], "unknown_class", "unknown class 'hors' .* did you mean 'horse'"),
        ("cat,zebra crossing", "unknown_class", "unknown class 'zebra crossing'"),
        ([20], "unknown_class", r"index 20 is outside 0\.\.19"),
        ("20", "unknown_class", r"index 20 is outside 0\.\.19"),
        ([-1], "unknown_class", r"index -1 is outside"),
        ([""], "unknown_class", "unknown class ''"),
        ("9" * 5000, "unknown_class", "unknown class"),
        ([7, 7], "unclear_labels", r"7 comes 2 times in the labels \[7, 7\]; .* a one-hot vector has 20 values"),
        ("7;7.0", "unclear_labels", r"7 comes 2 times"),
        ([0, 1, 0] * 7, "unclear_labels", r"0 comes 14 times .*\.\.\.\]; .* has 20 values"),
        ([True], "unclear_labels", r"\[true\] is neither .* for each of the 20 classes"),
        (["cat", True], "unclear_labels", "True is neither"),
        ([0.2, 0.7], "unclear_labels", "label 0.2 is neither .* scores have to be cut"),
        ({"cat": 1}, "unclear_labels", "neither"),
        ('{"cat": 1}', "unclear_labels", "neither"),
        ([None], "unclear_labels", "None is neither"),
        ([["cat"]], "unclear_labels", "neither"),
        ("[" * 90_000 + "]" * 90_000, "unknown_class", "unknown class"),
    ],
)
def test_what_is_not_understood_becomes_a_problem(labels: object, status: str, reason: str) -> None:
    classes, problem = LabelReader(VOC).read(labels, "table.csv line 3")
    assert classes == ()
    assert problem is not None
    assert problem.status == status
    assert str(problem).startswith("table.csv line 3: ")
    assert re.search(reason, str(problem))


def test_a_class_called_by_digits_wins_over_an_index() -> None:
    digits = Vocabulary("digits", tuple(entry for entry in VOC.classes[:3]))
    named = Vocabulary("named", (*digits.classes, type(VOC.classes[0])("0", "zero")))
    assert LabelReader(named).read("0", "here") == ((4,), None)
    assert LabelReader(named).read([0], "here") == ((1,), None)


@given(st.sets(st.integers(0, 19)))
def test_names_and_indices_agree(indices: set[int]) -> None:
    reader, expected = LabelReader(VOC), tuple(sorted(index + 1 for index in indices))
    names = [VOC.names[index + 1] for index in indices]
    for labels in (list(indices), names, ";".join(names), ",".join(map(str, indices))):
        assert reader.read(labels, "here") == (expected, None)


def test_repeated_labels_are_read_alike_and_share_their_classes() -> None:
    """A reader remembers labels of text; 1 and True are equal, and only the first is an index."""
    reader = LabelReader(VOC)
    for labels, classes in ((["cat", "dog"], (8, 12)), ("cat,dog", (8, 12)), ("1", (2,)), ([1], (2,)), ([], ())):
        first, _ = reader.read(labels, "line 1")
        assert reader.read(labels, "line 2") == (first, None) == (classes, None)
    assert reader.read(["cat", "dog"], "here")[0] is reader.read(["cat", "dog"], "there")[0]
    for labels in (["cat,dog"], [True], ["1", True], ["hors"]):
        for origin in ("line 1", "line 2"):
            classes, problem = reader.read(labels, origin)
            assert classes == ()
            assert problem is not None
            assert str(problem).startswith(f"{origin}: ")
