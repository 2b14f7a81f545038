"""VOC's evaluation server: predictions packed as it takes them, after checking everything that its scorer would refuse.

The scorer runs once and says little, and a team has few tries: everything is checked here, first on the folder of
predictions and then once more on the bytes of the finished archive.
"""

import gzip
import hashlib
import io
import os
import struct
import tarfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from pseudolabel.errors import UserError
from pseudolabel.io.image_list import ImageNames, read_image_list
from pseudolabel.io.ownership import own_files_beside
from pseudolabel.io.walk import find_images
from pseudolabel.runtime.progress import show_progress
from pseudolabel.vocabulary import voc_palette

MEMBERS = "results/VOC2012/Segmentation/comp6_test_cls"  # comp6: trained on more than VOC's own segmentations
CLASSES = 21  # with background
IGNORE = 255
NAMED = 3  # faults of a kind that a message names one by one

Files = Mapping[str, Callable[[], bytes]]

_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
_PNG_END = b"IEND\xaeB`\x82"
_PALETTE = voc_palette()


class Fault(NamedTuple):
    """What the server's scorer would abort on or score wrongly.

    Attributes:
        what: the file and the value in it.
        hint: what to do, in the same words for all faults of a kind, which are reported together.
    """

    what: str
    hint: str


def pack(predictions: Path, voc: Path, split: str, archive: Path) -> int:
    """Pack predictions into the tar.gz that VOC's evaluation server takes; equal predictions give equal bytes.

    The archive appears under its name only once the checks have passed on the bytes in it.

    Args:
        predictions: folder of palette PNGs `<id>.png`, uint8 (H, W) of values 0..20 in VOC's colours, each of exactly
            its JPEG's size.
        voc: the data set's folder, with JPEGImages and ImageSets/Segmentation.
        split: the list in ImageSets/Segmentation that the predictions have to cover; the server scores `test`.
        archive: the file to write, `.tar.gz` or `.tgz`.

    Returns:
        Number of predictions in the archive.

    Raises:
        UserError: if there is no such folder or list, if any prediction is at fault (all faults are counted, the first
            of each kind named), if the archive cannot be written, or if it would replace a file that is not ours.
    """
    predictions, voc, archive = predictions.expanduser(), voc.expanduser(), archive.expanduser()
    files_beside, name = own_files_beside(str(archive))
    files_beside.check([name])
    ids = read_ids(voc, split)
    if not archive.name.endswith((".tar.gz", ".tgz")):
        raise UserError(f"the server takes a tar.gz, not '{archive}'; let `out` end in .tar.gz")
    if not predictions.is_dir():
        raise UserError(f"no folder '{predictions}'; give the one that holds the predictions, <id>.png each")
    files = {path.name: path.read_bytes for path in sorted(predictions.iterdir()) if path.suffix.lower() == ".png"}
    if faults := find_faults(files, ids, voc, f"{split}.txt"):
        raise UserError(f"'{predictions}' is not ready for VOC's server, no archive was written: {report(faults)}")
    unfinished = archive.with_name(f".unfinished-{archive.name}")
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        _write(unfinished, files)
        if faults := find_faults_of_archive(unfinished, ids, voc, f"{split}.txt"):
            raise UserError(
                f"the archive does not read back as it was written; try another disk for `out`: {report(faults)}"
            )
        files_beside.note({name: hashlib.sha256(unfinished.read_bytes()).hexdigest()})
        os.replace(unfinished, archive)
    except OSError as error:
        raise UserError(f"'{archive}' cannot be written: {error}; choose another `out`") from error
    finally:
        with suppress(OSError):  # the message of what went wrong before says more
            unfinished.unlink(missing_ok=True)
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


def find_faults(files: Files, ids: list[str], voc: Path, listed: str) -> list[Fault]:
    """Everything in a set of predictions that the server's scorer would abort on or score wrongly.

    Args:
        files: by file name, a function that reads the file's bytes.
        ids: sorted ids of the images that have to be there, and no others.
        voc: the data set's folder; of its JPEGs only the headers are read.
        listed: name of the list of ids, for messages.
    """
    images, names = _images_of(voc), [f"{name}.png" for name in ids]
    missing, further = [name for name in names if name not in files], sorted(set(files) - set(names))
    faults = [Fault(f"no '{name}'", f"every image of {listed} needs a prediction") for name in missing]
    faults += [Fault(f"'{name}'", f"{listed} does not list it; take it out of the folder") for name in further]
    failures = len(faults)
    with show_progress("check", len(ids)) as progress:
        for done, (image, name) in enumerate(zip(ids, names, strict=True), 1):
            jpeg = voc / "JPEGImages" / (images.find(image) or f"{image}.jpg")
            found = _faults_of_file(name, files[name], jpeg) if name in files else []
            faults += found
            failures += bool(found)
            progress.update(done, failures)
    return faults


def find_faults_of_archive(archive: Path, ids: list[str], voc: Path, listed: str) -> list[Fault]:
    """`find_faults` on the members of an archive, as they are in the file."""
    try:
        whole = io.BytesIO(gzip.decompress(archive.read_bytes()))  # gzip's checksum, which tarfile would not reach
        with tarfile.open(fileobj=whole, mode="r:") as tar:
            files = {_file_name(member): partial(_read_member, tar, member) for member in tar}
            return find_faults(files, ids, voc, listed)
    except (tarfile.TarError, *_DAMAGED) as error:
        return [Fault(f"'{archive.name}': {error}", "it is not a whole tar.gz")]


def report(faults: list[Fault]) -> str:
    """How many faults there are, and of each kind the first few by name and what fixes them."""
    kinds: dict[str, list[str]] = {}
    for fault in faults:
        kinds.setdefault(fault.hint, []).append(fault.what)
    lines = [f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"]
    for hint, found in kinds.items():
        rest = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        lines.append(f"  {', '.join(found[:NAMED])}{rest}: {hint}")
    return "\n".join(lines)


def _faults_of_file(name: str, read: Callable[[], bytes], jpeg: Path) -> list[Fault]:
    try:
        with Image.open(jpeg, formats=("JPEG",)) as header:
            size = header.size  # as stored, without EXIF orientation
    except _DAMAGED as error:
        return [Fault(f"'{jpeg}': {_said(error)}", "the image's size cannot be checked; unpack VOC's archive again")]
    try:
        data = read()
        # verify() sees wrong checksums, load() missing pixels, and neither the loss of the last four bytes.
        if _PNG_END not in data:
            raise OSError("truncated: it has no end")
        Image.open(io.BytesIO(data), formats=("PNG",)).verify()
        image = Image.open(io.BytesIO(data), formats=("PNG",))
        if image.size == size:
            image.load()
    except _DAMAGED as error:
        return [Fault(f"'{name}': {_said(error)}", "the file is damaged or no PNG; write it again")]
    return [*_faults_of_header(name, image, size), *(_faults_of_pixels(name, image) if image.size == size else [])]


def _said(error: Exception) -> str:
    return "not an image of its kind" if isinstance(error, UnidentifiedImageError) else str(error) or repr(error)


def _faults_of_header(name: str, image: Image.Image, size: tuple[int, int]) -> list[Fault]:
    faults = []
    if image.mode != "P":
        hint = (
            "the server wants palette PNGs of mode P, one class index per pixel in VOC's colours. MMSegmentation's own "
            "IoUMetric writes mode L; `pseudolabel test` writes them right"
        )
        faults.append(Fault(f"'{name}' has mode {image.mode}", hint))
    if image.size != size:
        what = f"'{name}' is {image.width} x {image.height}, its JPEG {size[0]} x {size[1]}"
        hint = (
            "a prediction needs exactly the size of the JPEG as it is stored, to which VOC applies no EXIF "
            "orientation; resize the logits, not the labels"
        )
        faults.append(Fault(what, hint))
    return faults


def _faults_of_pixels(name: str, image: Image.Image) -> list[Fault]:
    """Faults of label values and of their colours; a mode without label values has none of its own."""
    if image.mode not in ("P", "L"):
        return []
    counts = image.histogram()[:256]
    values = [value for value, count in enumerate(counts) if count]
    faults = []
    if counts[IGNORE]:
        hint = "the scorer aborts on the ignore label; a prediction has to choose a class or background, 0, everywhere"
        faults.append(Fault(f"'{name}' holds 255 in {counts[IGNORE]} pixels", hint))
    if beyond := [value for value in values if CLASSES <= value < IGNORE]:
        what = f"'{name}' holds {', '.join(map(str, beyond[:NAMED]))}"
        hint = "VOC's labels are 0 (background) to 20; convert('L') on a palette PNG makes such greys of indices"
        faults.append(Fault(what, hint))
    if image.mode == "P" and (other := _first_other_colour(image, [value for value in values if value < CLASSES])):
        hint = "the palette has to be VOC's colour map; pseudolabel.vocabulary.voc_palette() gives it"
        faults.append(Fault(f"'{name}' {other}", hint))
    return faults


def _first_other_colour(image: Image.Image, values: list[int]) -> str | None:
    colours = image.getpalette("RGB") or []
    for value in values:
        expected, found = _PALETTE[value].tolist(), colours[3 * value : 3 * value + 3]
        if found != expected:
            return f"paints {value} as {found or 'nothing'} instead of {expected}"
    return None


def _file_name(member: tarfile.TarInfo) -> str:
    """The member's name in the folder where the scorer looks; elsewhere its whole path, which no list names."""
    folder, _, name = member.name.rpartition("/")
    return name if folder == MEMBERS else f"/{member.name}"


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    if file is None:
        raise OSError("not a regular file")
    return file.read()


def _write(path: Path, files: Files) -> None:
    """Write and sync the archive; neither gzip's header nor tar's tell a time, a name or an owner."""
    with path.open("wb") as file:
        with (
            gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w") as tar,
        ):
            for name, read in sorted(files.items()):
                data = read()
                member = tarfile.TarInfo(f"{MEMBERS}/{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        file.flush()
        os.fsync(file.fileno())
