"""Image lists of data sets: one image per line, in any of the usual notations."""

import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from pseudolabel.errors import ImageListError, UserError
from pseudolabel.io.filesystem import open_filesystem
from pseudolabel.io.image_formats import HEIF_SUFFIXES, IMAGE_SUFFIXES

_SUFFIXES = (*IMAGE_SUFFIXES, *HEIF_SUFFIXES)
_SUFFIX = f"(?:{'|'.join(map(re.escape, _SUFFIXES))})"
_ENDS_IN_SUFFIX = re.compile(rf"(.+){_SUFFIX}", re.IGNORECASE)
_GAP = re.compile(r"\s*[,;\t]\s*|\s+")
_IMAGE_AND_REST = re.compile(rf"(.+?{_SUFFIX})(?:{_GAP.pattern})(.+)", re.IGNORECASE)
_MASK = re.compile(rf"(.+?{_SUFFIX})(?:(?:{_GAP.pattern}).*)?", re.IGNORECASE)
_FLAG = re.compile(r"(.*\S)\s+(?:-1|0|1)")  # VOC's ImageSets/Main: whether the image has the list's class
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


class ListedImage(NamedTuple):
    """One line of an image list.

    Attributes:
        id: path below the image folder, without suffix.
        file: the image's path below that folder if the file names were given and one matches; else empty.
        mask: the second column as written if it is the path of a mask; else empty.
        origin: list and line number, for messages.
    """

    id: str
    file: str
    mask: str
    origin: str


class ImageNames:
    """The files of an image folder, found by id.

    An id matches the file with that name and any suffix, in upper or lower case. Composed and decomposed Unicode forms
    are equal. If several files match, JPEG is preferred to PNG, and PNG to other formats.

    Args:
        files: paths below the folder.
    """

    def __init__(self, files: Iterable[str]) -> None:
        self._files = frozenset(files)
        self._by_stem: dict[str, str] = {}
        for file in self._files:
            name = _composed(stem(file))
            other = self._by_stem.setdefault(name, file)
            if other is not file:
                self._by_stem[name] = min(file, other, key=_preference)

    def find(self, name: str) -> str | None:
        """The file that an id, or a path with suffix, refers to; None if there is none."""
        if name in self._files:
            return name
        return (
            self._by_stem.get(name)
            or self._by_stem.get(_composed(name))
            or self._by_stem.get(_composed(_without_suffix(name)))
        )

    def __len__(self) -> int:
        return len(self._files)


def read_image_list(
    path: str, images: ImageNames | None = None, folder: str = "JPEGImages", hint: str = "name a list of images"
) -> dict[str, ListedImage]:
    """Read a list of images: `ID`, `ID.jpg`, `/JPEGImages/ID.jpg /SegmentationClassAug/ID.png`, or `ID  1`.

    Ids may contain blanks and dots. Blank lines, blanks around a line, a byte order mark and the line ends of any
    system are ignored. Columns after the image are ignored, except the path of a mask. If `images` is given, its names
    decide whether a blank separates columns or belongs to an id.

    Args:
        path: local path or fsspec URL of the list.
        images: the existing image files.
        folder: name of the image folder; in a path, it and everything before it are dropped.
        hint: what the user should do if the list cannot be read; the end of the message.

    Returns:
        The images by id, in the order of the list.

    Raises:
        ImageListError: if the list is missing, not text, empty, or names an image twice.
    """
    text = _read_text(path, hint)
    lines = [(number, line.strip()) for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1) if line.strip()]
    if not lines:
        raise ImageListError(f"'{path}' is empty; a list of images names one per line")
    flags = _are_flags([line for _, line in lines])
    listed: dict[str, ListedImage] = {}
    for number, line in lines:
        name, file, mask = _read_line(line, images, folder, flags)
        image = ListedImage(name, file, mask, f"{path} line {number}")
        if name in listed:
            raise ImageListError(
                f"'{name}' is listed twice: {listed[name].origin} and {image.origin}; remove one of the lines"
            )
        listed[name] = image
    return listed


def stem(file: str) -> str:
    """A path without the suffix of its last part: `a/v1.2.jpg` becomes `a/v1.2`."""
    folder, slash, name = file.rpartition("/")
    dot = name.rfind(".")
    return f"{folder}{slash}{name[:dot]}" if dot > 0 else file


def _read_text(path: str, hint: str) -> str:
    """Decode the list; bytes that are not UTF-8 become surrogates, as in Python's file names."""
    try:
        fs, name = open_filesystem(path)
        data = fs.cat_file(name)
    except FileNotFoundError as error:
        raise ImageListError(f"no file '{path}'; {hint}") from error
    except (OSError, UserError) as error:
        raise ImageListError(f"the list '{path}' cannot be read ({error}); {hint}") from error
    try:
        text: str = data.decode(_BYTE_ORDER_MARKS.get(data[:2], "utf-8-sig"), "surrogateescape")
    except UnicodeDecodeError as error:
        raise ImageListError(f"the list '{path}' is not text ({error}); {hint}") from error
    if "\0" in text:
        raise ImageListError(f"the list '{path}' is not text; {hint}")
    return text


def _read_line(line: str, images: ImageNames | None, folder: str, flags: bool) -> tuple[str, str, str]:
    """Id, file and mask of a line."""
    if images is not None:
        file = images.find(line)
        if file is not None:
            return stem(file), file, ""
        gaps = [match.span() for match in _GAP.finditer(line)]
        for start, end in ((len(line), len(line)), *reversed(gaps)):
            file = images.find(_below(line[:start], folder))
            if file is not None:
                return stem(file), file, _mask(line[end:])
    name, rest = _split(line, flags)
    return _without_suffix(_below(name, folder)), "", _mask(rest)


def _split(line: str, flags: bool) -> tuple[str, str]:
    """Split a line into the image and the columns after it, without knowing the image files."""
    if match := _IMAGE_AND_REST.fullmatch(line):
        return match[1], match[2]
    if "\t" in line:
        name, _, rest = line.partition("\t")
        return name.strip(), rest.strip()
    for gap in _GAP.finditer(line):
        name, rest = line[: gap.start()], line[gap.end() :]
        if name and _ENDS_IN_SUFFIX.fullmatch(rest) and _last(name) == _last(_without_suffix(rest)):
            return name, rest
    if flags and (match := _FLAG.fullmatch(line)):
        return match[1], ""
    return line, ""


def _are_flags(lines: list[str]) -> bool:
    """Whether every line ends in a column of -1, 0 or 1. If names differ only in it, it is part of them."""
    matches = [match for line in lines if (match := _FLAG.fullmatch(line))]
    return len(matches) == len(lines) == len({match[1] for match in matches})


def _mask(rest: str) -> str:
    match = _MASK.fullmatch(rest)
    return match[1] if match else ""


def _below(name: str, folder: str) -> str:
    """The path below the image folder, with forward slashes."""
    path = "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
    _, found, after = f"/{path}".partition(f"/{folder}/")
    return after if found else path


def _without_suffix(name: str) -> str:
    match = _ENDS_IN_SUFFIX.fullmatch(name)
    return match[1] if match else name


def _last(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


def _composed(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _preference(file: str) -> tuple[int, str]:
    suffix = file[len(stem(file)) :].lower()
    return (_SUFFIXES.index(suffix) if suffix in _SUFFIXES else len(_SUFFIXES), file)
