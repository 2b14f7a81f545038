"""Every file of a folder is done, failed, or left out and counted."""

import io
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from pseudolabel.config import SourceConfig
from pseudolabel.errors import SampleError
from pseudolabel.io.folder import Folder
from pseudolabel.io.tar import read_tar
from pseudolabel.records import Sample
from pseudolabel.runtime.rank import Rank
from pseudolabel.sources.source import open_source
from pseudolabel.stages.job import open_job
from pseudolabel.stages.samples import work_through
from pseudolabel.stages.summary import Summary
from pseudolabel.stages.units import Unit, cut_units
from pseudolabel.vocabulary import load_vocabulary

VOC = load_vocabulary("voc")
JUNK = ("__MACOSX", "@eaDir")
CLASSES = ("cat", "dog")
ODD = "ab.[]*?{}:#%~\n \"'\\é星_-\udce9"


class Item(NamedTuple):
    """An entry of the folder: its parent folders, name without suffix, suffix, and kind."""

    folders: tuple[str, ...]
    name: str
    suffix: str
    content: str

    @property
    def is_visible(self) -> bool:
        return not any(part.startswith(".") or part in JUNK for part in (*self.folders, self.name))

    @property
    def is_valid(self) -> bool:
        """Whether this is an image of a class, with a name that is text."""
        is_image = self.content in ("JPEG", "PNG", "link to an image") and self.suffix != ".txt"
        is_text = not any("\udc80" <= letter <= "\udcff" for letter in "".join((*self.folders, self.name)))
        return is_image and is_text and self.is_visible and self.folders[:1] in (("cat",), ("dog",))


def image(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), "red").save(buffer, kind)
    return buffer.getvalue()


CONTENT = {"JPEG": image("JPEG"), "PNG": image("PNG"), "cut": image("JPEG")[:100], "text": b"some text", "empty": b""}
OTHERS = (
    "link to an image",
    "broken link",
    "link to itself",
    "pipe",
    "link up",
    "link to the store",
    "link to a folder",
)
NAMES = st.text(ODD, min_size=1, max_size=5).filter(lambda name: name.strip("."))
FOLDERS = st.sampled_from(
    [*CLASSES, "hors", "background", ".git", *JUNK, "deep er", "[v1]", "10::30", "__a__", "é\udce9"]
)
SUFFIXES = st.sampled_from(["", ".jpg", ".JPG", ".jfif", ".png", ".txt", ".weird", ".jpg_large", ". [x]", ".jpg?w=1"])
ITEMS = st.builds(Item, st.lists(FOLDERS, max_size=3).map(tuple), NAMES, SUFFIXES, st.sampled_from([*CONTENT, *OTHERS]))


def lay_out(items: list[Item], root: Path, store: Path) -> list[Item]:
    """Write the items, each under a name of its own; gives them as they were written."""
    written = []
    for number, item in enumerate(items):
        named = item._replace(name=f"{item.name}{number}")
        path = root.joinpath(*item.folders, named.name + item.suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        links = {"link to an image": store / "a.jpg", "broken link": "nowhere", "link to itself": path.name,
                 "link up": "..", "link to the store": store, "link to a folder": root / "cat"}  # fmt: skip
        if item.content in CONTENT:
            path.write_bytes(CONTENT[item.content])
        elif item.content == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to(links[item.content])
        written.append(named)
    return written


def shrink(samples: Iterable[Sample]) -> Iterator[tuple[Sample, int | SampleError]]:
    for sample in samples:
        yield sample, sample.image.width


def run(root: Path, out: Path, rank: Rank) -> Summary:
    """List, read and write with the real job; only the model is replaced, by the image's width."""

    def keys(unit: Unit, without: frozenset[str]) -> str:
        return " ".join(entry.key for entry in unit.entries if entry.key not in without)

    source = open_source(SourceConfig(kind="folder", path=str(root)), VOC)
    units = cut_units(source.entries, 4)
    with open_job(Folder(str(out)), "cams", {}, units, keys, rank, left_out=source.left_out) as job:
        work_through(job, source, 2, shrink, lambda sample, width: {"txt": str(width).encode()})
        summary = job.finish()
    assert summary is not None
    return summary


@pytest.mark.slow
@settings(max_examples=25)
@example([Item(("cat",), "caf\udce9", ".jpg", "JPEG"), Item((".git",), "a", "", "link to the store")])
@example([Item(("cat",), "x", "", "link to the store"), Item(("dog", "[v1]"), "y", "", "link to the store")])
@example([Item(("__a__",), "x", ".jpg", "JPEG"), Item(("cat", "__a__"), "\n", ".jpg?w=1", "PNG")])
@given(st.lists(ITEMS, max_size=12))
def test_every_file_of_a_folder_is_accounted_for(items: list[Item]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, store, out = Path(folder, "in [v1]::x"), Path(folder, "store"), Path(folder, "out [v1]")
        (root / "cat").mkdir(parents=True)
        (root / "cat/always.jpg").write_bytes(CONTENT["JPEG"])
        (store / "deep").mkdir(parents=True)
        (store / "a.jpg").write_bytes(CONTENT["JPEG"])
        (store / "deep/b.txt").write_bytes(CONTENT["text"])
        written = lay_out(items, root, store)
        summary = run(root, out, Rank(0, 1, 1, torch.device("cpu")))
        stored = []
        for shard in sorted(out.glob("*.tar")):
            with shard.open("rb") as file:
                stored += [key for key, _ in read_tar(file)]

    # The first link to the store that is followed brings its two files; every other link to a folder is one thing.
    followed = [item for item in written if item.content == "link to the store" and item.is_visible]
    total = 1 + len(written) + (1 if followed else 0)
    assert sum(summary.statuses.values()) + sum(summary.left_out.values()) == total
    assert len(stored) == len(set(stored)) == summary.statuses["ok"] == summary.samples
    valid = 1 + sum(item.is_valid for item in written)
    assert valid <= summary.samples <= valid + bool(followed)


@pytest.mark.parametrize("name", ["a.jpg", "a"])
def test_the_first_example_of_hypothesis(tmp_path: Path, one_rank: Rank, name: str) -> None:
    (tmp_path / "in/cat").mkdir(parents=True)
    (tmp_path / "in/cat" / name).write_bytes(CONTENT["JPEG"])
    (tmp_path / "in/cat/notes.txt").touch()
    (tmp_path / "in/hors.jpg").write_bytes(CONTENT["cut"])
    summary = run(tmp_path / "in", tmp_path / "out", one_rank)
    assert (summary.statuses, summary.left_out) == ({"ok": 1, "unlabelled": 1}, {".txt": 1})
