import io
import tarfile
import time
from pathlib import Path

import pytest
import webdataset

from pseudolabel.io.tar import read_tar, write_tar


def tar_of(*samples: tuple[str, dict[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    write_tar(buffer, samples)
    return buffer.getvalue()


MEMBERS = {"jpg": b"\xff\xd8", "cam.npz": b"PK", "json": b"{}"}
KEYS = [
    "a",
    "dogs/a",
    "a/b/c/d",
    "x" * 90,
    "y" * 180,
    "/".join(["long"] * 60),
    "mötorhead",
    "犬/写真_1",
    "a b",
    "-",
    "a'b",
]


@pytest.mark.parametrize("key", KEYS)
def test_keys_and_members_can_be_read_back(tmp_path: Path, key: str) -> None:
    path = tmp_path / "s.tar"
    path.write_bytes(tar_of((key, MEMBERS)))
    with path.open("rb") as file:
        assert list(read_tar(file)) == [(key, MEMBERS)]
    [sample] = webdataset.WebDataset(str(path), shardshuffle=False)
    assert sample["__key__"] == key
    assert {name: sample[name] for name in MEMBERS} == MEMBERS


def test_many_samples_keep_their_order() -> None:
    samples = [(key, {**MEMBERS, "json": key.encode()}) for key in KEYS]
    assert list(read_tar(io.BytesIO(tar_of(*samples)))) == samples


def test_bytes_depend_only_on_content(monkeypatch: pytest.MonkeyPatch) -> None:
    first = tar_of(("a", MEMBERS), ("ü", MEMBERS))
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    monkeypatch.setenv("USER", "somebody-else")
    assert tar_of(("a", MEMBERS), ("ü", MEMBERS)) == first
    assert tar_of(("a", MEMBERS), ("u", MEMBERS)) != first
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        for member in tar:
            assert (member.mtime, member.uname, member.gname) == (0, "", "")


def test_an_empty_shard_is_a_tar() -> None:
    assert list(read_tar(io.BytesIO(tar_of()))) == []


@pytest.mark.parametrize("share", [0.2, 0.5, 0.7])
def test_a_truncated_tar_is_detected(share: float) -> None:
    data = tar_of(*[(str(number), {"jpg": bytes(3000), "json": b"{}"}) for number in range(4)])
    with pytest.raises(tarfile.TarError):
        list(read_tar(io.BytesIO(data[: int(len(data) * share)])))


def test_other_files_are_detected() -> None:
    with pytest.raises(tarfile.TarError):
        list(read_tar(io.BytesIO(b"no tar at all" * 100)))
