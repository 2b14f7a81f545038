import json

from hypothesis import given
from hypothesis import strategies as st

from pseudolabel.io.names import printable


def test_invalid_utf8_is_escaped() -> None:
    assert printable("caf\udce9/é\n.jpg") == "caf\\xe9/é\n.jpg"
    assert printable("half \ud83d") == "half \\ud83d"
    assert printable("[v1] ü") == "[v1] ü"


@given(st.text(st.characters(codec=None)))
def test_anything_can_be_stored(name: str) -> None:
    assert json.loads(json.dumps(printable(name), ensure_ascii=False).encode()) == printable(name)
