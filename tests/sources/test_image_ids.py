from unicodedata import normalize

import pytest

from pseudolabel.errors import SourceError
from pseudolabel.sources.entry import Entry, key_of
from pseudolabel.sources.image_ids import describe_ids, match_ids


def named(*keys: str) -> list[Entry]:
    return [Entry(key, f"/data/{key}.jpg", (), "") for key in keys]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("a", "a"),
        ("a.jpg", "a"),
        ("a.JPEG", "a"),
        ("JPEGImages/a.png", "a"),
        ("/data/VOC2012/JPEGImages/a.jpg", "a"),
        ("..\\JPEGImages\\a.jpg", "a"),
        ("./a.jpg", "a"),
        ("frame.0.5", "frame_0_5"),
        ("frame.0.5.jpg", "frame_0_5"),
        ("frame_0_5", "frame_0_5"),
        ("train/star/b", "train/star/b"),
        ("star/b.jpg", "train/star/b"),
        ("b", "train/star/b"),
        ("data/train/star/b.webp", "train/star/b"),
        ("val/star/b", None),
        ("twice", None),
        ("one/twice", "x/one/twice"),
        ("frame.0", None),
        ("A", None),
        ("", None),
        ("..", None),
        ("star", None),
    ],
)
def test_the_ways_to_name_an_image(name: str, key: str | None) -> None:
    keys = ["a", "frame_0_5", "train/star/b", "x/one/twice", "x/two/twice"]
    assert match_ids([name], named(*keys), "labels.json") == ({} if key is None else {name: key})


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("keyed", ["NFC", "NFD"])
def test_accents_may_be_composed_or_not(form: str, keyed: str) -> None:
    name, key = normalize(form, "star/café.jpg"), normalize(keyed, "star/café")
    assert match_ids([name], named(key), "labels.json") == {name: key}
    assert key_of(normalize(keyed, "star/café.jpg")) == normalize("NFC", "star/café")


def test_the_id_with_fewer_differences_stands_for_an_image() -> None:
    for ids in (["old/a.jpg", "a.jpg", "a"], ["a", "a.jpg", "old/a.jpg"], ["x/a.jpg", "y/a.jpg", "a"]):
        assert match_ids(ids, named("a"), "labels.json") == {"a": "a"}


@pytest.mark.parametrize(
    ("ids", "image", "key", "chosen"),
    [
        (["a_b", "a.b"], "x/a.b.jpg", "a_b", "a.b"),
        (["a.b.jpg", "a_b.jpg"], "x/a.b.jpg", "a_b", "a.b.jpg"),
        (["a_b"], "x/a.b.jpg", "a_b", "a_b"),
        (["a.b", "a_b"], "x/a_b.jpg", "a_b", "a_b"),
        (["v1_2/a", "train/v1.2/a.jpg"], "x/v1.2/a.jpg", "v1_2/a", "train/v1.2/a.jpg"),
    ],
)
def test_the_images_own_name_goes_before_its_key(ids: list[str], image: str, key: str, chosen: str) -> None:
    assert match_ids(ids, [Entry(key, image, (), "")], "labels.json") == {chosen: key}


def test_ids_that_fit_equally_well_are_refused() -> None:
    with pytest.raises(SourceError, match=r"labels\.json' has both 'train/a.jpg' and 'val/a.jpg', .* image 'a'; keep"):
        match_ids(["train/a.jpg", "val/a.jpg"], named("a", "b"), "labels.json")


def test_ids_in_a_message() -> None:
    assert describe_ids("ab") == "'a', 'b'"
    assert describe_ids("abcde") == "'a', 'b', 'c', ... (5 in all)"
    assert describe_ids([]) == "none"
