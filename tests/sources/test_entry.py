import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudolabel.errors import SourceError
from pseudolabel.sources.entry import key_of


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("2007_000032.jpg", "2007_000032"),
        ("images/a.b.jpg", "images/a_b"),
        ("/data/v1.2/a.jpg", "data/v1_2/a"),
        ("../other/./a.png", "other/a"),
        ("s3://bucket/a.jpg", "s3:/bucket/a"),
        ("no_suffix", "no_suffix"),
        (".hidden", "_hidden"),
        ("folder/", "folder"),
        ("caf\udce9/a\udce9.jpg", "caf\\xe9/a\\xe9"),
        ("__cache__/a.jpg", "-__cache__/a"),
        ("__a__.jpg", "__a__"),
        (" a*[b]\n{c}.jpg", " a*[b]\n{c}"),
    ],
)
def test_key_of_a_path(path: str, key: str) -> None:
    assert key_of(path) == key


@pytest.mark.parametrize("path", ["", ".", "..", "/", "../..", "//"])
def test_a_path_without_a_name_has_no_key(path: str) -> None:
    with pytest.raises(SourceError, match="gives no key"):
        key_of(path)


@given(st.text(alphabet="ab./ -é", min_size=1))
def test_keys_are_tar_safe(path: str) -> None:
    try:
        key = key_of(path)
    except SourceError:
        assert not set(path) - {".", "/"}
        return
    assert "." not in key
    assert all(key.split("/"))
