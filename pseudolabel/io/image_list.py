"""Image lists as data sets publish them: one image per line, in any of the ways in which people write it."""

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
        id: path below the folder of images, without suffix.
        file: the image's path below that folder, where the names of its files were given and one fits; else empty.
        mask: the second column as it is written, where it is the path of a mask; else empty.
        origin: the list and the line, for messages.
    """

    id: str
    file: str
    mask: str
    origin: str


class ImageNames:
    """The files of a folder of images, found by id.

    An id finds the file of that name, with whatever suffix in whatever case; Unicode's composed and decomposed forms
    are one. Where several files fit, JPEG goes before PNG and PNG before others.

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
        """The file of an id or of a path with suffix; None if there is none."""
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
    path: str, images: ImageNames | None = None, folder: str = "JPEGImages", remedy: str = "name a list of images"
) -> dict[str, ListedImage]:
    """Read a list of images: `ID`, `ID.jpg`, `/JPEGImages/ID.jpg /SegmentationClassAug/ID.png`, or `ID  1`.

    Ids may hold blanks and dots. Blank lines, blanks around a line, a byte order mark, and the line ends of any system
    are of no account. A column after the image's is left out unless it is the path of a mask. What is a column and what
    belongs to an id with blanks is read off the images' names where they are given.

    Args:
        path: local path or fsspec URL of the list.
        images: the files that there are.
        folder: name of the folder of images; what stands before it in a path is left out.
        remedy: the end of the message where there is no such list.

    Returns:
        The images by id, in the list's order.

    Raises:
        ImageListError: if the list is missing, no text, empty, or names an image twice.
    """
    text = _read_text(path, remedy)
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


def _read_text(path: str, remedy: str) -> str:
    """Bytes that are no UTF-8 stay as surrogates, as Python gives the names of files that hold them."""
    try:
        fs, name = open_filesystem(path)
        data = fs.cat_file(name)
    except FileNotFoundError as error:
        raise ImageListError(f"no file '{path}'; {remedy}") from error
    except (OSError, UserError) as error:
        raise ImageListError(f"the list '{path}' cannot be read ({error}); {remedy}") from error
    try:
        text: str = data.decode(_BYTE_ORDER_MARKS.get(data[:2], "utf-8-sig"), "surrogateescape")
    except UnicodeDecodeError as error:
        raise ImageListError(f"the list '{path}' is not text ({error}); {remedy}") from error
    if "\0" in text:
        raise ImageListError(f"'{path}' is not text, which a list of images is; {remedy}")
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
    """The image and the columns after it, by the look of the line alone."""
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
    """Whether the -1, 0 or 1 that every line ends in is a column; where it tells names apart it is part of them."""
    matches = [match for line in lines if (match := _FLAG.fullmatch(line))]
    return len(matches) == len(lines) == len({match[1] for match in matches})


def _mask(rest: str) -> str:
    match = _MASK.fullmatch(rest)
    return match[1] if match else ""


def _below(name: str, folder: str) -> str:
    """A path below the folder of images, with slashes."""
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
