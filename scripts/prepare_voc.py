"""Prepare PASCAL VOC 2012 with the masks of SBD: download, verify, unpack, convert, list and label.

    python scripts/prepare_voc.py                       # downloads 3.4 GB, writes ./VOCdevkit
    python scripts/prepare_voc.py --out data --trainval VOCtrainval_11-May-2012.tar --sbd benchmark.tgz \\
        --test VOC2012test.tar

OUT/VOCdevkit/VOC2012 then holds the images in use with their Annotations, the masks of train_aug and val in
SegmentationClassAug, the lists train, val and train_aug in ImageSets/Segmentation, and image_labels.json. A run that
was stopped goes on when the same command is given again. The test images come only after a login at the evaluation
server, so their archive is taken from a file; all but a submission to that server works without them.
"""

import argparse
import hashlib
import http.client
import io
import json
import os
import re
import shutil
import ssl
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.io
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import open as open_with_bar

from pseudolabel.errors import SampleError, UserError
from pseudolabel.io.image_list import read_image_list
from pseudolabel.io.images import mask_image, read_mask
from pseudolabel.runtime.progress import show_progress
from pseudolabel.vocabulary import load_vocabulary

HOST = "http://host.robots.ox.ac.uk"
LISTS = "ImageSets/Segmentation"
NOT_OFFICIAL = "the archive that holds it is not the official one"
LABEL_FILE = "image_labels.json"
NAMES = load_vocabulary("voc").names
CHUNK = 1 << 20
TIMEOUT = 60  # seconds without a byte
PATIENCE = 6  # tries in a row that bring nothing new
PASSING = (408, 429, 500, 502, 503, 504)  # statuses that may be others in a minute
BROKEN_OFF = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)

VOC_MEMBER = re.compile(r"(?:\./)?VOCdevkit/VOC2012/(\w+(?:/\w+)?)/((\w+)\.(?:jpg|png|xml|txt))")
SBD_MEMBER = re.compile(r"(?:\./)?benchmark_RELEASE/dataset/(?:cls/(\w+)\.mat|(train|val)\.txt)")


@dataclass(frozen=True)
class Archive:
    """An archive: file name, checksum, the option that names a local copy, and the URL, empty where there is none."""

    name: str
    md5: str
    option: str
    url: str = ""


@dataclass(frozen=True)
class Release:
    """The archives of a release of the data, and how many images each list has to have in the end."""

    trainval: Archive
    test: Archive
    sbd: Archive
    counts: dict[str, int] = field(default_factory=dict)


SBD_FOLDER = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours"
VOC_NAME = "VOCtrainval_11-May-2012.tar"
OFFICIAL = Release(
    Archive(VOC_NAME, "6cd6e144f989b92b3379bac3b3de84fd", "--trainval", f"{HOST}/pascal/VOC/voc2012/{VOC_NAME}"),
    Archive("VOC2012test.tar", "9065beb292b6c291fad82b2725749fda", "--test"),
    Archive("benchmark.tgz", "82b4d87ceb2ed10f6038a1cba92111cb", "--sbd", f"{SBD_FOLDER}/benchmark.tgz"),
    counts={"train": 1464, "val": 1449, "train_aug": 10582, "test": 1456},
)


def main(arguments: list[str] | None = None, release: Release = OFFICIAL) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("."), help="where VOCdevkit is written (default: here)")
    for archive in (release.trainval, release.test, release.sbd):
        origin = f"downloaded from {archive.url} where not given" if archive.url else "left out where not given"
        parser.add_argument(archive.option, type=existing_file, help=f"local copy of {archive.name}; {origin}")
    args = parser.parse_args(arguments)
    try:
        prepare(args.out.expanduser(), args.trainval, args.test, args.sbd, release)
    except (UserError, OSError) as error:
        hint = "" if isinstance(error, UserError) else "; fix that and run the same command again: it goes on from here"
        print(f"prepare_voc: {error}{hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("prepare_voc: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def existing_file(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"no file '{text}'")
    return Path(text)


def prepare(out: Path, trainval: Path | None, test: Path | None, sbd: Path | None, release: Release) -> None:
    voc, downloads = out / "VOCdevkit" / "VOC2012", out / "VOCdevkit" / "archives"
    trainval = obtain(release.trainval, trainval, downloads)
    test = obtain(release.test, test, downloads) if test else None
    sbd = obtain(release.sbd, sbd, downloads)
    unpack(trainval, voc, (LISTS, "SegmentationClass"))
    train, val = read_list(voc, "train"), read_list(voc, "val")
    train_aug = combine_lists(train, val, convert_sbd(sbd, voc, keep={*train, *val}))
    keep_voc_masks(voc, [*train, *val])
    write(voc / LISTS / "train_aug.txt", "".join(f"{name}\n" for name in train_aug).encode())
    unpack(trainval, voc, ("JPEGImages", "Annotations"), {*train_aug, *val})
    if test:
        unpack(test, voc, (LISTS,))
        unpack(test, voc, ("JPEGImages",), set(read_list(voc, "test")))
    write_labels(voc, [*train_aug, *val])
    check(voc, ["train", "val", "train_aug", *(["test"] if test else [])], release.counts)
    print(farewell(voc, with_test=test is not None))


# Archives: there is none that has not been verified.


def obtain(archive: Archive, given: Path | None, downloads: Path) -> Path:
    """A verified archive: the local copy, an earlier download, or a new one."""
    target = given or downloads / archive.name
    if target.exists():
        verify(target, archive)
    else:
        part = download(archive, downloads)
        try:
            verify(part, archive)
        except UserError:
            part.unlink()  # resuming it would fail again
            raise
        os.replace(part, target)
    return target


def verify(path: Path, archive: Archive) -> None:
    with open_with_bar(path, "rb", description=f"verify {archive.name}", console=Console(stderr=True)) as file:
        md5 = hashlib.md5(usedforsecurity=False)
        while chunk := file.read(CHUNK):
            md5.update(chunk)
    if md5.hexdigest() != archive.md5:
        raise UserError(
            f"'{path}' has the checksum {md5.hexdigest()}, but {archive.name} has {archive.md5}: it is damaged or "
            f"another file. Remove it and run the same command again, or give {archive.option} a complete copy"
        )


def download(archive: Archive, folder: Path, pause: float = 2.0) -> Path:
    """Download to FILE.part, going on where an earlier try or run broke off; the content is not verified yet."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{archive.name}.part"
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True, soft_wrap=True)
    console.print(f"downloading {archive.url} -> {folder}", highlight=False)
    furthest = failures = 0
    with Progress(TextColumn(archive.name), *columns, console=console) as bar:
        task = bar.add_task(archive.name, total=None)
        while True:
            try:
                for done, total in transfer(archive.url, part):
                    bar.update(task, completed=done, total=total)
                return part
            except BROKEN_OFF as error:
                size = part.stat().st_size if part.exists() else 0
                furthest, failures = max(furthest, size), 0 if size > furthest else failures + 1
                is_final = isinstance(error, urllib.error.HTTPError) and error.code not in PASSING
                if is_final or failures >= PATIENCE:
                    raise UserError(
                        f"{archive.url} cannot be downloaded: {error}. Run the same command again later, it goes on "
                        f"from byte {size}; or get {archive.name} elsewhere and give it as {archive.option} PATH"
                    ) from error
                console.print(f"{archive.name}: {error}; trying again", highlight=False)
                time.sleep(pause * 2**failures)


def transfer(url: str, part: Path) -> Iterator[tuple[int, int | None]]:
    """One request for what is missing of a file; yields the bytes that are there and those of the whole."""
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if not done or error.code != 416:
            raise
        return  # nothing is missing; a file that is too long has another checksum
    with response:
        resumed = (response.headers.get("Content-Range") or "").startswith(f"bytes {done}-")
        done = done if resumed else 0  # a server without ranges sends everything
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else None
        with part.open("ab" if resumed else "wb") as file:
            while chunk := response.read1(CHUNK):  # what has come, without waiting for more
                file.write(chunk)
                done += len(chunk)
                yield done, total
    if total is not None and done < total:
        raise ConnectionError(f"the connection broke off at byte {done} of {total}")


# Unpacking: every file appears whole or not at all, and those that are there are left alone.


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A temporary path beside the target, renamed over it at the end; leftovers of a killed run are rewritten."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".unfinished-{target.name}")
    yield temporary
    os.replace(temporary, target)


def other(path: Path) -> UserError:
    """Files appear whole, and equal archives give equal files: one that differs is from elsewhere, or was changed."""
    return UserError(f"'{path}' is there already and is not what the archives give; move it, or choose another --out")


def unpack(archive: Path, voc: Path, folders: tuple[str, ...], ids: Collection[str] | None = None) -> None:
    """Unpack these folders of VOC's tar, all files or those of some images."""
    with tarfile.open(archive, "r:") as tar:
        wanted = []
        for member in tar:
            match = VOC_MEMBER.fullmatch(member.name)
            if match and member.isfile() and match[1] in folders and (ids is None or match[3] in ids):
                wanted.append((member, voc / match[1] / match[2]))
        with show_progress(f"unpack {' and '.join(folders)}", len(wanted)) as progress:
            for done, (member, target) in enumerate(wanted, 1):
                if target.exists() and target.stat().st_size != member.size:
                    raise other(target)
                if not target.exists():
                    with appearing(target) as temporary, temporary.open("wb") as unpacked:
                        packed = tar.extractfile(member)
                        assert packed is not None  # only links and folders have no content
                        shutil.copyfileobj(packed, unpacked)
                progress.update(done, 0)


def convert_sbd(archive: Path, voc: Path, keep: Collection[str]) -> list[str]:
    """Write SBD's class masks as palette PNGs, but for the ids to keep; returns the ids of its lists train and val."""
    lists: dict[str, list[str]] = {}
    with (
        open_with_bar(archive, "rb", description="convert SBD's masks", console=Console(stderr=True)) as file,
        tarfile.open(fileobj=file, mode="r|gz") as tar,
    ):
        for member in tar:
            match = SBD_MEMBER.fullmatch(member.name)
            content = tar.extractfile(member) if match and member.isfile() else None
            if not match or content is None:
                continue
            name, split = match.groups()
            target = voc / "SegmentationClassAug" / f"{name}.png"
            if split:
                lists[split] = content.read().decode().split()
            elif name not in keep and not target.exists():
                save_mask(target, read_sbd_mask(content.read(), member.name))
    if lists.keys() != {"train", "val"}:
        raise UserError(f"'{archive}' holds the lists {sorted(lists)} instead of SBD's train and val")
    return lists["train"] + lists["val"]


def read_sbd_mask(data: bytes, origin: str) -> np.ndarray:
    """uint8 (H, W) of one of SBD's .mat files: 0 background, 1..20 classes, and no ignored border as VOC has it."""
    labels = scipy.io.loadmat(io.BytesIO(data))["GTcls"][0, 0]["Segmentation"]
    if labels.ndim != 2 or labels.max() > 20:
        raise UserError(f"{origin} holds {labels.shape} labels up to {labels.max()}; SBD's are (H, W) of 0..20")
    return labels.astype(np.uint8)


def save_mask(target: Path, labels: np.ndarray) -> None:
    with appearing(target) as temporary:
        mask_image(labels).save(temporary, "PNG")


def keep_voc_masks(voc: Path, ids: Iterable[str]) -> None:
    """VOC's own masks go before SBD's: byte by byte, since opening and converting them could change values."""
    for name in ids:
        data = read(voc / "SegmentationClass" / f"{name}.png")
        write(voc / "SegmentationClassAug" / f"{name}.png", data)


# Lists and labels


def combine_lists(train: Iterable[str], val: Iterable[str], sbd: Iterable[str]) -> list[str]:
    """train_aug: VOC's train and all of SBD, without VOC's val, on which everybody is scored; sorted."""
    return sorted({*train, *sbd} - {*val})


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"no file '{path}'; {NOT_OFFICIAL}") from error


def read_list(voc: Path, split: str) -> list[str]:
    return [*read_image_list(str(voc / LISTS / f"{split}.txt"), hint=NOT_OFFICIAL)]


def write(path: Path, data: bytes) -> None:
    if path.exists():
        if path.read_bytes() != data:
            raise other(path)
        return
    with appearing(path) as temporary:
        temporary.write_bytes(data)


def write_labels(voc: Path, ids: list[str]) -> None:
    labels = {}
    with show_progress("labels from masks", len(ids)) as progress:
        for done, name in enumerate(sorted(ids), 1):
            labels[name] = labels_of(voc / "SegmentationClassAug" / f"{name}.png")
            progress.update(done, 0)
    write(voc / LABEL_FILE, json.dumps(labels, indent=0).encode() + b"\n")


def labels_of(mask: Path) -> list[str]:
    """Names of the classes in a mask, in the order of their indices."""
    try:
        values = np.flatnonzero(np.bincount(read_mask(read(mask), str(mask)).ravel()))
    except SampleError as error:
        raise UserError(f"{error}; remove it and run the same command again") from error
    found = [int(value) for value in values if value not in (0, 255)]
    if found and found[-1] >= len(NAMES):
        raise UserError(f"'{mask}' holds {found[-1]}, VOC's labels end at 20; remove it and run the same command again")
    return [NAMES[value] for value in found]


def check(voc: Path, splits: list[str], expected: dict[str, int]) -> None:
    for split in splits:
        ids = read_list(voc, split)
        if split in expected and len(ids) != expected[split]:
            raise UserError(f"{split} lists {len(ids)} images, not {expected[split]}; remove '{voc}' and start again")
        if missing := [name for name in ids if not (voc / "JPEGImages" / f"{name}.jpg").is_file()]:
            raise UserError(
                f"{split}: {len(missing)} ids have no image in '{voc / 'JPEGImages'}', such as '{missing[0]}'"
            )
        print(f"{split}: {len(ids)} images")


def farewell(voc: Path, with_test: bool) -> str:
    notice = f"no test images: their archive comes after a login at {HOST}:8080; give it as --test PATH"
    data = f"--source.path {voc} --source.labels {voc / LABEL_FILE} --source.masks {voc / 'SegmentationClassAug'}"
    return f"""{"test images are in place" if with_test else notice}
VOC 2012 is ready in {voc}. Go on with its train images:
  accelerate launch -m pseudolabel generate --config voc12_train --source.path {voc} --captions.source none
or with those of train_aug, captions first:
  accelerate launch -m pseudolabel caption --config voc12_train_aug {data}
  accelerate launch -m pseudolabel generate --config voc12_train_aug {data}"""


if __name__ == "__main__":
    sys.exit(main())
