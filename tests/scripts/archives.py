"""Small archives in the official layouts of VOC and SBD, and the script that prepares them, as a process."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from pseudolabel.io.images import read_mask
from pseudolabel.vocabulary import voc_palette
from scripts.prepare_voc import Archive, Release

REPOSITORY = Path(__file__).resolve().parents[2]
TRAIN = ["2007_000032", "2007_000039", "2008_000008"]
VAL = ["2007_000033", "2007_000042"]
SBD_TRAIN = ["2008_000008", "2008_000002", "2007_000033", "2009_000006"]  # one of VOC's train, one of its val
SBD_VAL = ["2008_000003", "2010_000005"]
TRAIN_AUG = ["2007_000032", "2007_000039", "2008_000002", "2008_000003", "2008_000008", "2009_000006", "2010_000005"]
TEST = ["2008_000006", "2008_000011"]
OTHER = ["2011_000001"]  # of VOC's other tasks
SIZE = (24, 18)


def seed_of(name: str) -> int:
    return int(name.replace("_", ""))


def draw_labels(name: str, kind: int, border: bool) -> np.ndarray:
    """A rectangle of one class, and for VOC's own masks the ignored border around it."""
    rng = np.random.default_rng([seed_of(name), kind])
    labels = np.zeros(SIZE[::-1], np.uint8)
    if border:
        labels[3:15, 3:20] = 255
    labels[4:14, 4:19] = rng.integers(1, 21)
    return labels


def jpeg(name: str) -> bytes:
    noise = np.random.default_rng(seed_of(name)).integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


def png(labels: np.ndarray) -> bytes:
    image, buffer = Image.fromarray(labels), io.BytesIO()
    image.putpalette(voc_palette().tobytes())
    image.save(buffer, "PNG")
    return buffer.getvalue()


def mat(labels: np.ndarray) -> bytes:
    """A file as SBD's authors saved it: a struct with the segmentation, boundaries by class, and the classes."""
    boundaries = np.empty((20, 1), object)
    for index in range(20):
        boundaries[index, 0] = scipy.sparse.csc_matrix(labels.shape, dtype=bool)
    present = np.unique(labels[labels > 0])[:, None]
    buffer = io.BytesIO()
    contents = {"Boundaries": boundaries, "Segmentation": labels, "CategoriesPresent": present}
    scipy.io.savemat(buffer, {"GTcls": contents}, do_compression=True)
    return buffer.getvalue()


def write_tar(path: Path, contents: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as tar:
        folders = {str(parent) for name in contents for parent in Path(name).parents if str(parent) != "."}
        for folder in sorted(folders):
            member = tarfile.TarInfo(folder)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)
        for name, data in sorted(contents.items()):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def lines(names: list[str]) -> bytes:
    return "".join(f"{name}\n" for name in names).encode()


def voc_contents() -> dict[str, bytes]:
    root = "VOCdevkit/VOC2012"
    contents = {f"{root}/ImageSets/Main/train.txt": lines(OTHER), f"{root}/ImageSets/Main/cat_train.txt": b"x -1\n"}
    for split, names in {"train": TRAIN, "val": VAL, "trainval": sorted(TRAIN + VAL)}.items():
        contents[f"{root}/ImageSets/Segmentation/{split}.txt"] = lines(names)
    for name in {*TRAIN_AUG, *VAL, *OTHER}:
        contents[f"{root}/JPEGImages/{name}.jpg"] = jpeg(name)
        contents[f"{root}/Annotations/{name}.xml"] = b"<annotation></annotation>"
    for name in TRAIN + VAL:
        contents[f"{root}/SegmentationClass/{name}.png"] = png(draw_labels(name, 0, border=True))
        contents[f"{root}/SegmentationObject/{name}.png"] = png(draw_labels(name, 2, border=True))
    return contents


def voc_test_contents() -> dict[str, bytes]:
    root = "VOCdevkit/VOC2012"
    images = {f"{root}/JPEGImages/{name}.jpg": jpeg(name) for name in [*TEST, "2009_000099"]}
    return images | {f"{root}/ImageSets/Segmentation/test.txt": lines(TEST)}


def sbd_contents() -> dict[str, bytes]:
    root = "benchmark_RELEASE/dataset"
    contents = {f"{root}/train.txt": lines(SBD_TRAIN), f"{root}/val.txt": lines(SBD_VAL)}
    for name in SBD_TRAIN + SBD_VAL:
        contents[f"{root}/cls/{name}.mat"] = mat(draw_labels(name, 1, border=False))
        contents[f"{root}/inst/{name}.mat"] = b"not needed"
        contents[f"{root}/img/{name}.jpg"] = jpeg(name)
    return contents | {"benchmark_RELEASE/BharathICCV2011.pdf": b"%PDF"}


def archive_of(path: Path, option: str, url: str = "") -> Archive:
    return Archive(path.name, hashlib.md5(path.read_bytes()).hexdigest(), option, url)


@dataclass(frozen=True)
class Data:
    """The three archives, and the table that describes them."""

    trainval: Path
    test: Path
    sbd: Path
    release: Release

    @property
    def options(self) -> list[str]:
        return ["--trainval", str(self.trainval), "--test", str(self.test), "--sbd", str(self.sbd)]


def describe(trainval: Path, test: Path, sbd: Path, url: str = "") -> Release:
    counts = {"train": 3, "val": 2, "train_aug": 7, "test": 2}
    urls = [f"{url}/{path.name}" if url else "" for path in (trainval, sbd)]
    return Release(
        archive_of(trainval, "--trainval", urls[0]),
        archive_of(test, "--test"),
        archive_of(sbd, "--sbd", urls[1]),
        counts,
    )


# The script in a process of its own, on a table of the test's archives; with `kill`, it ends itself by SIGKILL in
# place of its so-manieth rename, which no `finally` or handler survives.
DRIVER = """
import os, signal, sys
from scripts.prepare_voc import Archive, Release, main
release, kill, arguments = eval(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
rename, count = os.replace, 0
def replace(source, target):
    global count
    count += 1
    if count == kill:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
os.replace = replace
status = main(arguments, release)
print("renames", count)
sys.exit(status)
"""


def command_of(release: Release, *arguments: object, kill: int = 0) -> tuple[list[str], dict[str, str]]:
    command = [sys.executable, "-c", DRIVER, repr(release), str(kill), *map(str, arguments)]
    return command, {**os.environ, "PYTHONPATH": str(REPOSITORY), "no_proxy": "127.0.0.1"}


def run_script(release: Release, *arguments: object, kill: int = 0) -> subprocess.CompletedProcess[str]:
    command, environment = command_of(release, *arguments, kill=kill)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def mask(path: Path) -> np.ndarray:
    return read_mask(path.read_bytes(), str(path))
