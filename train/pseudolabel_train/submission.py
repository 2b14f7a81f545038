"""The archive of predictions that PASCAL VOC's evaluation server takes.

The server's scorer runs once, says little about errors, and few submissions are allowed. Every prediction is therefore
checked for everything that the scorer would refuse; the archive holds the bytes that were checked.
"""

import gzip
import io
import struct
import tarfile
import zlib
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from pseudolabel.errors import UserError
from pseudolabel.io.image_list import ImageNames, read_image_list
from pseudolabel.io.ownership import write_own
from pseudolabel.io.walk import find_images
from pseudolabel.records import IGNORE
from pseudolabel.runtime.progress import show_progress
from pseudolabel.vocabulary import voc_palette

MEMBERS = "results/VOC2012/Segmentation/comp6_test_cls"  # comp6: trained on more than VOC's own segmentations
CLASSES = 21  # with background
NAMED = 3  # problems of a kind that a message names one by one

_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
_PNG_END = b"IEND\xaeB`\x82"
_PALETTE = voc_palette()


class Problem(NamedTuple):
    """Something in the predictions that the server's scorer would refuse or score wrongly.

    Attributes:
        what: the file and the value in it.
        hint: how to fix it; problems with the same hint are reported together.
    """

    what: str
    hint: str


def pack(predictions: Path, voc: Path, split: str, archive: Path) -> int:
    """Pack predictions into the tar.gz that VOC's evaluation server takes; equal predictions give equal bytes.

    Args:
        predictions: folder of palette PNGs `<id>.png`, uint8 (H, W) with values 0..20 in VOC's colours, each of exactly
            its JPEG's size.
        voc: the data set's folder, with JPEGImages and ImageSets/Segmentation.
        split: the list in ImageSets/Segmentation that the predictions must cover; the server scores `test`.
        archive: the file to write, `.tar.gz` or `.tgz`.

    Returns:
        Number of predictions in the archive.

    Raises:
        UserError: if the folder or the list is missing, if any prediction has a problem (all are counted, the first of
            each kind are named), or if the archive cannot be written or would overwrite a file that is not ours.
    """
    predictions, voc, archive = predictions.expanduser(), voc.expanduser(), archive.expanduser()
    ids = read_ids(voc, split)
    if not archive.name.endswith((".tar.gz", ".tgz")):
        raise UserError(f"the server takes a tar.gz, not '{archive}'; let `out` end in .tar.gz")
    if not predictions.is_dir():
        raise UserError(f"no folder '{predictions}'; give the one that holds the predictions, <id>.png each")
    files, problems = _check(predictions, ids, voc, f"{split}.txt")
    if problems:
        raise UserError(f"'{predictions}' is not ready for VOC's server, no archive was written: {_report(problems)}")
    write_own(str(archive), _archive(files))
    return len(ids)


def read_ids(voc: Path, split: str) -> list[str]:
    """Image ids of `ImageSets/Segmentation/<split>.txt`, sorted.

    Raises:
        UserError: if there is no such list, or it is empty or names an image twice.
    """
    folder = voc / "ImageSets" / "Segmentation"
    path = folder / f"{split}.txt"
    if not folder.is_dir():
        raise UserError(f"no folder '{folder}'; give the folder that holds ImageSets, such as VOCdevkit/VOC2012")
    lists = ", ".join(sorted(other.stem for other in folder.glob("*.txt"))) or "nothing"
    return sorted(
        read_image_list(
            str(path),
            _images_of(voc),
            hint=f"`split` can be {lists}. VOC's test list and images come in VOC2012test.tar, see "
            "scripts/prepare_voc.py --test",
        )
    )


def _images_of(voc: Path) -> ImageNames:
    folder = voc / "JPEGImages"
    return ImageNames(find_images(str(folder))[0] if folder.is_dir() else [])


def _check(predictions: Path, ids: list[str], voc: Path, listed: str) -> tuple[dict[str, bytes], list[Problem]]:
    """The files of all predictions by name, and everything in them that the server's scorer would not accept.

    Args:
        predictions: their folder.
        ids: sorted ids of the images that need a prediction; no other image may have one.
        voc: the data set's folder; only the headers of its JPEGs are read.
        listed: name of the list of ids, for messages.
    """
    found = {path.name for path in predictions.iterdir() if path.suffix.lower() == ".png"}
    images, names = _images_of(voc), [f"{name}.png" for name in ids]
    missing, further = [name for name in names if name not in found], sorted(found.difference(names))
    problems = [Problem(f"no '{name}'", f"every image of {listed} needs a prediction") for name in missing]
    problems += [Problem(f"'{name}'", f"{listed} does not list it; take it out of the folder") for name in further]
    failures = len(problems)
    files: dict[str, bytes] = {}
    with show_progress("check", len(ids)) as progress:
        for done, (image, name) in enumerate(zip(ids, names, strict=True), 1):
            if name in found:
                jpeg = voc / "JPEGImages" / (images.find(image) or f"{image}.jpg")
                files[name], own = _check_file(predictions / name, jpeg)
                problems += own
                failures += bool(own)
            progress.update(done, failures)
    return files, problems


def _report(problems: list[Problem]) -> str:
    """The number of problems and, of each kind, the first few by name and how to fix them."""
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        kinds.setdefault(problem.hint, []).append(problem.what)
    lines = [f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"]
    for hint, found in kinds.items():
        rest = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        lines.append(f"  {', '.join(found[:NAMED])}{rest}: {hint}")
    return "\n".join(lines)


def _check_file(path: Path, jpeg: Path) -> tuple[bytes, list[Problem]]:
    try:
        with Image.open(jpeg, formats=("JPEG",)) as header:
            size = header.size  # as stored, without EXIF orientation
    except _DAMAGED as error:
        hint = "the image's size cannot be checked; unpack VOC's archive again"
        return b"", [Problem(f"'{jpeg}': {_reason(error)}", hint)]
    try:
        data = path.read_bytes()
        # verify() finds wrong checksums, load() missing pixels; neither notices that the last four bytes are missing.
        if _PNG_END not in data:
            raise OSError("truncated: it has no end")
        Image.open(io.BytesIO(data), formats=("PNG",)).verify()
        image = Image.open(io.BytesIO(data), formats=("PNG",))
        if image.size == size:
            image.load()
    except _DAMAGED as error:
        return b"", [Problem(f"'{path.name}': {_reason(error)}", "the file is damaged or no PNG; write it again")]
    problems = _check_header(path.name, image, size)
    return data, problems + (_check_pixels(path.name, image) if image.size == size else [])


def _reason(error: Exception) -> str:
    return "not an image of its kind" if isinstance(error, UnidentifiedImageError) else str(error) or repr(error)


def _check_header(name: str, image: Image.Image, size: tuple[int, int]) -> list[Problem]:
    problems = []
    if image.mode != "P":
        hint = (
            "the server wants palette PNGs of mode P, one class index per pixel in VOC's colours. MMSegmentation's own "
            "IoUMetric writes mode L; `pseudolabel test` writes palette PNGs"
        )
        problems.append(Problem(f"'{name}' has mode {image.mode}", hint))
    if image.size != size:
        what = f"'{name}' is {image.width} x {image.height}, its JPEG {size[0]} x {size[1]}"
        hint = (
            "a prediction needs exactly the size of the JPEG as it is stored, to which VOC applies no EXIF "
            "orientation; resize the logits, not the labels"
        )
        problems.append(Problem(what, hint))
    return problems


def _check_pixels(name: str, image: Image.Image) -> list[Problem]:
    """Problems of label values and their colours; modes other than P and L have no label values to check."""
    if image.mode not in ("P", "L"):
        return []
    counts = image.histogram()[:256]
    values = [value for value, count in enumerate(counts) if count]
    problems = []
    if counts[IGNORE]:
        hint = "the scorer aborts on the ignore label; a prediction has to choose a class or background, 0, everywhere"
        problems.append(Problem(f"'{name}' holds 255 in {counts[IGNORE]} pixels", hint))
    if beyond := [value for value in values if CLASSES <= value < IGNORE]:
        what = f"'{name}' holds {', '.join(map(str, beyond[:NAMED]))}"
        hint = "VOC's labels are 0 (background) to 20; convert('L') on a palette PNG turns indices into such greys"
        problems.append(Problem(what, hint))
    if image.mode == "P" and (other := _first_other_colour(image, [value for value in values if value < CLASSES])):
        hint = "the palette has to be VOC's colour map; pseudolabel.vocabulary.voc_palette() gives it"
        problems.append(Problem(f"'{name}' {other}", hint))
    return problems


def _first_other_colour(image: Image.Image, values: list[int]) -> str | None:
    colours = image.getpalette("RGB") or []
    for value in values:
        expected, found = _PALETTE[value].tolist(), colours[3 * value : 3 * value + 3]
        if found != expected:
            return f"paints {value} as {found or 'nothing'} instead of {expected}"
    return None


def _archive(files: dict[str, bytes]) -> bytes:
    """The tar.gz of the files; neither gzip's header nor tar's holds a time or an owner."""
    buffer = io.BytesIO()
    with gzip.GzipFile("", "wb", fileobj=buffer, mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in sorted(files.items()):
            member = tarfile.TarInfo(f"{MEMBERS}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
