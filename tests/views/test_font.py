"""Which font draws which text."""

import pytest
from PIL import ImageFont

from pseudolabel.views.font import legible

NOWHERE = "\U0010fffd"  # of private use; no font has it


def glyph(character: str, font: ImageFont.FreeTypeFont) -> bytes:
    return bytes(font.getmask(character))


def test_ascii_is_drawn_in_the_default_font() -> None:
    text, font = legible("red car", 14)
    assert text == "red car"
    assert font.getname() == ImageFont.load_default(14).getname()


@pytest.mark.parametrize("text", ["Grüße", "žába", "κόσμος", "кошка"])
def test_alphabets_have_glyphs(text: str) -> None:
    shown, font = legible(text, 14)
    assert shown == text
    missing = glyph(NOWHERE, font)
    assert all(glyph(character, font) != missing for character in text)
    assert len({glyph(character, font) for character in text}) == len(set(text))


def test_a_character_without_a_glyph_is_escaped() -> None:
    shown, font = legible(f"ü{NOWHERE}", 14)
    assert shown == "ü\\U0010fffd"
    assert glyph("ü", font) != glyph(NOWHERE, font)


def test_other_scripts_are_drawn_where_a_font_is_installed_and_escaped_elsewhere() -> None:
    shown, font = legible("犬", 14)
    assert shown == "\\u72ac" or glyph("犬", font) != glyph(NOWHERE, font)
