"""A font that has the characters of a text, for figures that Pillow draws."""

from functools import cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def legible(text: str, size: int) -> tuple[str, Font]:
    """A text as it can be drawn, and a font of this size in pixels that has its characters.

    Pillow's own font has ASCII, matplotlib's DejaVu Sans most alphabets; for other scripts an installed font is used.
    Characters that none has are escaped as in Python, since they would all look alike.
    """
    if text.isascii():
        return text, ImageFont.load_default(size)
    path = _find(frozenset(text))
    if path is None:
        path = _dejavu()
        text = "".join(
            c if ord(c) in _characters(path) else c.encode("ascii", "backslashreplace").decode() for c in text
        )
    return text, ImageFont.truetype(path, size)


@cache
def _find(characters: frozenset[str]) -> str | None:
    """The first font that has all characters."""
    from matplotlib.font_manager import fontManager

    codes = {ord(character) for character in characters}
    # Upright ones of normal weight first.
    listed = sorted(fontManager.ttflist, key=lambda font: (font.style != "normal", abs(_weight(font.weight) - 400)))
    # The font of last resort has every character, as a box that names its script.
    paths = dict.fromkeys([_dejavu(), *(font.fname for font in listed if "Last Resort" not in font.name)])
    return next((path for path in paths if codes <= _characters(path)), None)


def _weight(weight: int | str) -> int:
    return weight if isinstance(weight, int) else 400


def _dejavu() -> str:
    from matplotlib import get_data_path

    return f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf"


@cache
def _characters(path: str) -> frozenset[int]:
    """The code points that a font file has; none where it cannot be read, or has bitmaps of one size."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
        return frozenset(font.get_charmap() if font.scalable else ())
    except (OSError, RuntimeError):
        return frozenset()
