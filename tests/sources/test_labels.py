import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudolabel.sources.labels import LabelReader
from pseudolabel.vocabulary import Vocabulary, load_vocabulary

VOC = load_vocabulary("voc")


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
        ([], ()),
        ("", ()),
        (" ; ", ()),
        (None, ()),
    ],
)
def test_every_way_to_write_labels(labels: object, classes: tuple[int, ...]) -> None:
    assert LabelReader(VOC).read(labels, "here") == (classes, None)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (["cat", "hors"], "unknown class 'hors' .* did you mean 'horse'"),
        ("cat,zebra crossing", "unknown class 'zebra crossing'"),
        ([20], r"index 20 is outside 0\.\.19"),
        ("20", r"index 20 is outside 0\.\.19"),
        ([-1], r"index -1 is outside"),
        ([True], "True is neither"),
        ([7.0], "7.0 is neither"),
        ({"cat": 1}, "neither"),
        ([None], "None is neither"),
        ([["cat"]], "neither"),
        ([""], "unknown class ''"),
        ("9" * 5000, "unknown class"),
    ],
)
def test_what_is_not_understood_becomes_a_problem(labels: object, reason: str) -> None:
    classes, problem = LabelReader(VOC).read(labels, "table.csv line 3")
    assert classes == ()
    assert problem is not None
    status, message = problem
    assert status == "unknown_class"
    assert message.startswith("table.csv line 3: ")
    with pytest.raises(ValueError, match=reason):
        raise ValueError(message)


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
    """A reader remembers labels of text; one, 1.0 and True are equal, and only the first is an index."""
    reader = LabelReader(VOC)
    for labels, classes in ((["cat", "dog"], (8, 12)), ("cat,dog", (8, 12)), ("1", (2,)), ([1], (2,)), ([], ())):
        first, _ = reader.read(labels, "line 1")
        assert reader.read(labels, "line 2") == (first, None) == (classes, None)
    assert reader.read(["cat", "dog"], "here")[0] is reader.read(["cat", "dog"], "there")[0]
    for labels in (["cat,dog"], [1.0], [True], ["1", True], ["hors"]):
        for origin in ("line 1", "line 2"):
            classes, problem = reader.read(labels, origin)
            assert classes == ()
            assert problem is not None
            assert problem[1].startswith(f"{origin}: ")
