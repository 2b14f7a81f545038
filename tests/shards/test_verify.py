import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pseudolabel.errors import NoRecordError
from pseudolabel.io.folder import Folder
from pseudolabel.io.tar import Members, write_tar
from pseudolabel.shards.ledger import INDEX, RUN, Ledger
from pseudolabel.shards.packing import CAPTIONS, JSONL, Packing
from pseudolabel.shards.verify import find_folders, verify
from tests.shards.runs import write_run

SHARD = "cams-000001.tar"


def test_a_valid_run(run: Folder) -> None:
    seen: list[tuple[int, int]] = []
    assert verify(run, lambda done, total: seen.append((done, total))) == []
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_valid_run_of_masks(tmp_path: Path, mask_members: Members) -> None:
    assert verify(write_run(tmp_path / "masks", "masks", [[("a", mask_members)], []])) == []


def test_every_flipped_byte_is_found(run: Folder) -> None:
    data = run.read_bytes(SHARD)
    for place in range(0, len(data), 997):
        run.write_bytes(SHARD, data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert verify(run) == [f"{SHARD}: the bytes differ from those that were written (sha256)"]
    run.write_bytes(SHARD, data)
    assert verify(run) == []


def cut(run: Folder) -> None:
    run.write_bytes(SHARD, run.read_bytes(SHARD)[:-512])


def remove_shard(run: Folder) -> None:
    run.remove(SHARD)


def damage_entry(run: Folder) -> None:
    run.write_bytes("cams-000001.json", b"{")


def remove_entry(run: Folder) -> None:
    run.remove("cams-000001.json")


def remove_both(run: Folder) -> None:
    remove_shard(run)
    remove_entry(run)


def remove_index(run: Folder) -> None:
    run.remove(INDEX)


def damage_index(run: Folder) -> None:
    run.write_bytes(INDEX, run.read_bytes(INDEX)[:100])


def empty_index(run: Folder) -> None:
    run.write_bytes(INDEX, b"{}")


def remove_settings(run: Folder) -> None:
    run.remove(RUN)


def damage_settings(run: Folder) -> None:
    run.write_bytes(RUN, b"{}")


def add_shard(run: Folder) -> None:
    run.write_bytes("cams-000009.tar", run.read_bytes(SHARD))


def add_odd_shard(run: Folder) -> None:
    run.write_bytes("cams-copy.tar", run.read_bytes(SHARD))


def wrong_count(run: Folder) -> None:
    ledger = Ledger(run, "cams")
    ledger.write(replace(ledger.entry(1), samples=2))


def reopen(run: Folder) -> None:
    ledger = Ledger(run, "cams")
    ledger.reopen(ledger.entry(1))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (cut, "its shard is missing or of another size"),
        (remove_shard, "its shard is missing or of another size"),
        (damage_entry, "the ledger entry is damaged"),
        (remove_entry, f"{SHARD} has no ledger entry"),
        (remove_both, f"{INDEX} does not list the shards that the ledger has"),
        (remove_index, f"{INDEX} is missing: the run is not finished"),
        (damage_index, f"{INDEX} is damaged"),
        (empty_index, f"{INDEX} is damaged"),
        (remove_settings, f"{RUN} is missing"),
        (damage_settings, f"{RUN}' is damaged"),
        (add_shard, "cams-000009.tar has no ledger entry"),
        (add_odd_shard, "cams-copy.tar has no ledger entry"),
        (wrong_count, f"{SHARD}: 1 samples where the ledger says 2"),
        (reopen, f"{SHARD}: the retry of its failed samples is not finished"),
    ],
)
def test_damage_is_reported(run: Folder, damage: Callable[[Folder], None], problem: str) -> None:
    damage(run)
    problems = verify(run)
    assert any(problem in found for found in problems), problems


def forge(run: Folder, samples: list[tuple[str, Members]]) -> None:
    """Another shard with a ledger entry to match, as an error in the writer would leave it."""
    ledger, buffer = Ledger(run, run.path.rpartition("/")[2]), io.BytesIO()
    write_tar(buffer, samples)
    entry = ledger.entry(0)
    run.write_bytes(entry.shard, buffer.getvalue())
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    ledger.write(replace(entry, samples=len(samples), size=len(buffer.getvalue()), sha256=digest))


def small_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 3)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"jpg": b"no image"}, "cannot be read"),
        ({"jpg": small_jpeg()}, "image (3, 3) but (8, 12) beside it"),
        ({"cam.npz": b"PK"}, "cannot be read"),
        ({"json": b"{"}, "cannot be read"),
        ({"txt": b"one too many"}, "has members"),
    ],
)
def test_an_invalid_member_of_a_cam_shard(
    run: Folder, cam_members: Members, change: dict[str, bytes], problem: str
) -> None:
    forge(run, [("a", {**cam_members, **change})])
    assert any(problem in found for found in verify(run))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"png": b"no image"}, "cannot be read"),
        ({"jpg": small_jpeg()}, "image (3, 3) but (8, 12) beside it"),
        ({"json": json.dumps({"key": "b"}).encode()}, "describes itself as 'b'"),
        ({"json": b"{}"}, "cannot be read"),
        ({"json": b"[]"}, "cannot be read"),
    ],
)
def test_an_invalid_member_of_a_mask_shard(
    tmp_path: Path, mask_members: Members, change: dict[str, bytes], problem: str
) -> None:
    run = write_run(tmp_path / "masks", "masks", [[("a", mask_members)]])
    forge(run, [("a", {**mask_members, **change})])
    assert any(problem in found for found in verify(run))


def test_a_folder_without_shards(tmp_path: Path) -> None:
    assert verify(Folder(str(tmp_path))) == [f"'{tmp_path}' holds no shards"]
    assert verify(Folder(str(tmp_path / "absent"))) == [f"'{tmp_path / 'absent'}' holds no shards"]


@pytest.mark.parametrize(("kind", "packing"), [("filter", JSONL), ("captions", CAPTIONS)])
def test_files_of_lines_are_checked(tmp_path: Path, kind: str, packing: Packing) -> None:
    members = {"json": b'{"classes": ["dog"]}'} if kind == "filter" else {"dog": b"a dog", "cat": b"a cat"}
    run = write_run(tmp_path / kind, kind, [[("a", members)], [("b", members)]], packing)
    assert verify(run) == []
    name = f"{kind}-000001.jsonl"
    data = run.read_bytes(name)
    run.write_bytes(name, data.replace(b"dog", b"cow"))
    assert verify(run) == [f"{name}: the bytes differ from those that were written (sha256)"]
    broken = b"not JSON"
    run.write_bytes(name, broken)
    ledger = Ledger(run, kind)
    entry = ledger.recorded(1)
    assert entry is not None
    ledger.write(replace(entry, size=len(broken), sha256=hashlib.sha256(broken).hexdigest()))
    assert any("not a readable jsonl" in problem for problem in verify(run))


def test_the_folders_of_a_run_are_found(tmp_path: Path, mask_members: Members) -> None:
    masks = write_run(tmp_path / "masks", "masks", [[("a", mask_members)]])
    guesses = write_run(tmp_path / "filter", "filter", [[("a", {"json": b"{}"})]], JSONL)
    (tmp_path / "cams").mkdir()
    (tmp_path / "captions").mkdir()
    (tmp_path / "captions" / "captions-mine.jsonl").touch()
    assert [found.path for found in find_folders(Folder(str(tmp_path)))] == [masks.path, guesses.path]
    assert [found.path for found in find_folders(masks)] == [masks.path]


def test_folders_without_shards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NoRecordError, match=r"holds no shards of this package.*give the `out` of cams"):
        find_folders(Folder(str(tmp_path)))
    with pytest.raises(NoRecordError, match=r"there is no folder '.*absent'"):
        find_folders(Folder(str(tmp_path / "absent")))
