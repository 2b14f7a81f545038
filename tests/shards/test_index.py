import bz2
import gzip
import io
import lzma
import multiprocessing
import os
import subprocess
import tarfile
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pseudolabel.errors import ShardError
from pseudolabel.shards.find import SORT
from pseudolabel.shards.index import ShardIndex, load_index
from tests.mounts import mounted_tmpfs, remount
from tests.shards.samples import numbered, tiny_sample, write_shard

KEYS = ["a", "dogs/a", "x" * 90, "y" * 180, "/".join(["long"] * 60), "mötorhead", "犬/写真_1", "a b", "-"]


def cache_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.index.npy")


def contents(path: Path, index: ShardIndex) -> list[tuple[str, bytes, bytes]]:
    data = path.read_bytes()
    found = []
    for number in range(len(index)):
        key, *spans = index[number]
        image, mask = (data[span.offset : span.offset + span.length] for span in spans)
        found.append((key, image, mask))
    return found


def expected(samples) -> list[tuple[str, bytes, bytes]]:
    return [(key, members["jpg"], members["png"]) for key, members in samples]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    [samples] = numbered([5])
    return write_shard(tmp_path / "masks-000000.tar", samples)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of the test's own."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(KEYS), unique=True),
    st.lists(st.binary(max_size=2000), min_size=2 * len(KEYS), max_size=2 * len(KEYS)),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    st.sampled_from(["jpg", "jpeg", "JPG"]),
)
def test_every_sample_is_where_the_index_says(tmp_path: Path, keys, blobs, tar_format, suffix) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w", format=tar_format) as tar:
        for key in keys:
            for extension in (suffix, "png", "json"):
                info = tarfile.TarInfo(f"{key}.{extension}")
                data = blobs[2 * KEYS.index(key) + (extension == "png")]
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    index = load_index(str(path))
    wanted = [(key, blobs[2 * KEYS.index(key)], blobs[2 * KEYS.index(key) + 1]) for key in keys]
    assert contents(path, index) == wanted
    assert contents(path, load_index(str(path))) == wanted  # from the cache


def test_other_members_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as tar:
        folder = tarfile.TarInfo("dogs.d")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for member in ("README", "__info__/a.jpg", "dogs/a.jpg", "dogs/a.png"):
            info = tarfile.TarInfo(member)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    assert contents(path, load_index(str(path))) == [("dogs/a", b"abc", b"abc")]


def test_the_index_is_stored_beside_the_shard(shard: Path) -> None:
    load_index(str(shard))
    before = cache_of(shard).stat()
    load_index(str(shard))
    after = cache_of(shard).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert sorted(path.name for path in shard.parent.iterdir()) == [cache_of(shard).name, shard.name]


def test_a_stored_index_avoids_reading_headers(shard: Path) -> None:
    wanted = contents(shard, load_index(str(shard)))
    stat = shard.stat()
    shard.write_bytes(bytes(stat.st_size))
    os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert [key for key, *_ in contents(shard, load_index(str(shard)))] == [key for key, *_ in wanted]


@pytest.mark.parametrize("same", ["size", "time"])
def test_a_changed_shard_is_indexed_again(shard: Path, same: str) -> None:
    load_index(str(shard))
    before = shard.stat()
    samples = [(f"other_{number}", tiny_sample(number)) for number in range(5 if same == "size" else 50)]
    write_shard(shard, samples)
    if same == "time":
        os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        assert shard.stat().st_size == before.st_size
    index = load_index(str(shard))
    assert contents(shard, index) == expected(samples)
    assert index.stamp == (shard.stat().st_size, shard.stat().st_mtime_ns)


@pytest.mark.parametrize("damage", [lambda data: data[:-7], lambda data: b"", lambda data: b"nonsense" * 9])
def test_a_damaged_index_is_rewritten(shard: Path, damage) -> None:
    wanted = contents(shard, load_index(str(shard)))
    whole = cache_of(shard).read_bytes()
    cache_of(shard).write_bytes(damage(whole))
    assert contents(shard, load_index(str(shard))) == wanted
    assert cache_of(shard).read_bytes() == whole


def test_a_read_only_folder_uses_the_temporary_folder(tmp_path: Path, temporary: Path) -> None:
    [samples] = numbered([4])
    with mounted_tmpfs(tmp_path / "disk", "size=1m"):
        path = write_shard(tmp_path / "disk" / "masks-000000.tar", samples)
        remount(tmp_path / "disk", "ro")
        assert contents(path, load_index(str(path))) == expected(samples)
        [kept] = temporary.rglob("*.npy")
        before = kept.stat().st_ino
        assert contents(path, load_index(str(path))) == expected(samples)
        assert kept.stat().st_ino == before
        assert not cache_of(path).exists()
        assert kept.parent.stat().st_mode & 0o077 == 0


def test_without_a_writable_folder_the_index_is_in_memory(shard: Path, temporary: Path) -> None:
    cache_of(shard).mkdir()  # a file cannot be renamed over it
    next_best = temporary / f"pseudolabel-index-{os.getuid()}"
    next_best.write_bytes(b"")
    [samples] = numbered([5])
    assert contents(shard, load_index(str(shard))) == expected(samples)
    assert not list(shard.parent.glob(".unfinished-*"))
    next_best.unlink()
    assert contents(shard, load_index(str(shard))) == expected(samples)
    assert len(list(next_best.glob("*.npy"))) == 1


def build_often(path: str, barrier, results) -> None:
    found = []
    for _ in range(20):
        barrier.wait(20)
        index = load_index(path)
        found.append([index[number] for number in range(len(index))])
        if barrier.wait(20) == 0:
            cache_of(Path(path)).unlink(missing_ok=True)
    results.put(found)


@pytest.mark.slow
def test_processes_can_index_at_once(tmp_path: Path) -> None:
    [samples] = numbered([300])
    path = write_shard(tmp_path / "masks-000000.tar", samples)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3), context.Queue()
    processes = [context.Process(target=build_often, args=(str(path), barrier, results)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(20)
        assert process.exitcode == 0
    index = load_index(str(path))
    assert contents(path, index) == expected(samples)
    assert all(rows == [index[number] for number in range(300)] for rounds in found for rows in rounds)
    assert not list(tmp_path.glob(".unfinished-*"))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_samples(tmp_path: Path) -> None:
    def held(count: int) -> int:
        [samples] = numbered([count])
        path = write_shard(tmp_path / f"{count}.tar", samples)
        load_index(str(path))
        tracemalloc.start()
        index = load_index(str(path))
        assert index[count - 1][0] == f"image_{count - 1:06d}"
        current, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return current

    held(10)  # whatever is set up once
    assert held(4_000) < held(100) + 10_000


def test_indexing_does_not_keep_headers_in_memory(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "s.tar", numbered([2000])[0])
    tracemalloc.start()
    index = load_index(str(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(index) == 2000
    assert peak < 1_500_000  # 6000 headers take 5 MB


@pytest.mark.parametrize(
    ("compress", "word"), [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz")]
)
def test_a_compressed_shard_is_refused(shard: Path, compress, word: str) -> None:
    shard.write_bytes(compress(shard.read_bytes()))
    with pytest.raises(ShardError, match=f"masks-000000.tar' is compressed with {word}.*unpack it"):
        load_index(str(shard))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.75])
def test_a_truncated_shard_is_refused(shard: Path, share: float) -> None:
    data = shard.read_bytes().rstrip(b"\0")
    shard.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ShardError, match=f"masks-000000.tar' is .*pseudolabel verify {shard.parent}"):
        load_index(str(shard))
    assert not cache_of(shard).exists()


def test_a_damaged_header_is_refused(shard: Path) -> None:
    data = bytearray(shard.read_bytes())
    data[6 * 512 + 148] ^= 0xFF  # the checksum of a header after the first
    shard.write_bytes(data)
    with pytest.raises(ShardError, match="damaged or cut off at byte 3072"):
        load_index(str(shard))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            {"jpg": b"", "json": b""},
            r"sample 'b' has members \['jpg', 'json'\], but one image \(\.jpg\).*name them KEY\.jpg",
        ),
        ({"png": b"", "json": b""}, r"sample 'b' has members \['json', 'png'\]"),
        ({"image.png": b"", "mask.png": b""}, r"sample 'b' has members \['image\.png', 'mask\.png'\], but one image"),
        (
            {"a.jpg": b"", "b.jpg": b"", "png": b""},
            r"sample 'b' has members \['a\.jpg', 'b\.jpg', 'png'\], but one image",
        ),
    ],
)
def test_samples_without_image_or_mask_are_refused(tmp_path: Path, members, message: str) -> None:
    path = write_shard(tmp_path / "s.tar", {"a": tiny_sample(0), "b": members})
    with pytest.raises(ShardError, match=message):
        load_index(str(path))


@pytest.mark.parametrize(
    "members",
    [
        {"image.jpg": b"image", "mask.png": b"mask"},
        {"webp": b"image", "png": b"mask"},
        {"jpg": b"image", "seg.png": b"mask", "txt": b"star"},
        {"jpg": b"image", "png": b"mask", "thumb.jpg": b"small", "overlay.png": b"colours"},
    ],
)
def test_image_and_mask_of_other_programs_are_found_if_unique(tmp_path: Path, members) -> None:
    path = write_shard(tmp_path / "s.tar", {"b": members})
    assert contents(path, load_index(str(path))) == [("b", b"image", b"mask")]


def test_separated_members_get_a_sort_command(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as tar:
        for member in ("0.jpg", "1.jpg", "0.png", "1.png"):
            info = tarfile.TarInfo(member)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    with pytest.raises(ShardError, match=r"members of sample '0' are not adjacent in the tar.*tar --sort=name"):
        load_index(str(path))
    command = SORT.partition("`")[2].rstrip("`").replace("OLD.tar", "s.tar").replace("NEW.tar", "sorted.tar")
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert [key for key, *_ in contents(tmp_path / "sorted.tar", load_index(str(tmp_path / "sorted.tar")))] == [
        "./0",
        "./1",
    ]


def test_a_duplicate_member_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as tar:
        for member in ("a.jpg", "a.png", "a.png"):
            tar.addfile(tarfile.TarInfo(member))
    with pytest.raises(ShardError, match=r"holds 'a.png' twice"):
        load_index(str(path))


def test_missing_and_invalid_tars_are_refused(tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(ShardError, match=r"s.tar' is not a complete tar"):
        load_index(str(tmp_path / "s.tar"))
    with pytest.raises(ShardError, match=r"no shard or folder '.*t\.tar'; write it with"):
        load_index(str(tmp_path / "t.tar"))
