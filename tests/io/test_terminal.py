import json

import pytest

from pseudolabel.io.terminal import escaped


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("star/a (1) étoile 星 собака", "star/a (1) étoile 星 собака"),
        ("new\nline\r\t", r"new\nline\r\t"),
        ("\x1b[2J\x07", r"\u001b[2J\u0007"),
        ("\u202egpj.a", r"\u202egpj.a"),  # would be shown from right to left
        ("a\u2028b", r"a\u2028b"),
        ("caf\udce9.jpg", r"caf\udce9.jpg"),  # a byte that is no UTF-8
        ("\U000e0041", r"\udb40\udc41"),
        ("\xa0\u3000", "\xa0\u3000"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown
    assert json.loads(f'"{shown}"') == text
    shown.encode()


def test_characters_to_keep_are_unchanged() -> None:
    assert escaped("one\ntwo\x07", keep="\n") == "one\ntwo\\u0007"
