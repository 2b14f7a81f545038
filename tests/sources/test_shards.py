import io
import json
import subprocess
import tarfile
from pathlib import Path
from unicodedata import normalize

import fsspec
import numpy as np
import pytest
import webdataset
from PIL import Image

from pseudolabel.config import SourceConfig
from pseudolabel.errors import SampleError, SourceError
from pseudolabel.io.shard_paths import expand_braces
from pseudolabel.sources.source import Source, open_source
from pseudolabel.vocabulary import Vocabulary


def picture(colour: object = "red", kind: str = "JPEG", mode: str = "RGB", size: tuple[int, int] = (8, 6)) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, kind)
    return buffer.getvalue()


def write_shard(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def open_shards(path: Path | str, vocabulary: Vocabulary, **settings: object) -> Source:
    return open_source(SourceConfig(kind="shards", path=str(path), **settings), vocabulary)


def test_samples_are_sought_in_their_shard(tmp_path: Path, voc: Vocabulary) -> None:
    red, blue = picture("red"), picture("blue")
    members = {"b.jpg": red, "b.json": b'{"names": ["cat"]}', "a.json": b'{"names": ["dog", "person"]}', "a.jpg": blue}
    source = open_shards(write_shard(tmp_path / "s.tar", members), voc)
    assert [(entry.key, entry.classes) for entry in source.entries] == [("a", (12, 15)), ("b", (8,))]
    samples = [source.read(entry) for entry in source.entries]
    assert [sample.original for sample in samples] == [blue, red]
    entry = source.entries[0]
    assert entry.offset is not None
    assert entry.length == len(blue)
    assert (tmp_path / "s.tar").read_bytes()[entry.offset : entry.offset + entry.length] == blue
    assert entry.origin.endswith("s.tar: a.jpg")
    assert not source.has_ground_truth


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ({"json": b'{"names": ["cat", "dog"]}'}, (8, 12)),
        ({"json": b'{"labels": [7, 11]}'}, (8, 12)),
        ({"json": b'{"labels": [0,0,0,0,0,1,0,1,0,0,0,0,0,0,0,0,0,0,0,0]}'}, (6, 8)),
        ({"json": b'{"label": 7.0}'}, (8,)),
        ({"json": b'{"classes": ["cat", 11]}'}, (8, 12)),
        ({"json": b'{"classes": [8, 12], "names": ["cat", "dog"]}'}, (8, 12)),
        ({"json": b'{"labels": "cat"}'}, (8,)),
        ({"cls": b"7\n"}, (8,)),
        ({"cls": b"dining table"}, (11,)),
        ({"txt": b"cat, dog\n"}, (8, 12)),
        ({"json": b'{"names": []}', "cls": b"3"}, ()),
        ({"txt": b""}, ()),
        ({}, ()),
    ],
)
def test_labels_in_every_form(
    tmp_path: Path, voc: Vocabulary, labels: dict[str, bytes], classes: tuple[int, ...]
) -> None:
    members = {"a.jpg": picture(), **{f"a.{suffix}": content for suffix, content in labels.items()}}
    source = open_shards(write_shard(tmp_path / "s.tar", members), voc, unlabelled="background")
    assert source.read(source.entries[0]).classes == classes


@pytest.mark.parametrize(
    ("labels", "status", "reason"),
    [
        ({"json": b'{"names": ["hors"]}'}, "unknown_class", r"s\.tar: a\.json: unknown class 'hors'.*'horse'"),
        ({"cls": b"20"}, "unknown_class", r"a\.cls: label index 20 is outside"),
        ({"txt": b"a dog on a lawn"}, "unknown_class", "a dog on a lawn"),
        ({"json": b"{"}, "unreadable", r"a\.json"),
        ({"json": b'{"names": "\xff"}'}, "unreadable", r"a\.json"),
        ({"json": b'{"caption": "a dog"}'}, "unreadable", "an object with a list under names, labels, classes"),
        ({"json": b'["dog"]'}, "unreadable", "an object with a list under"),
    ],
)
def test_labels_that_cannot_be_used(
    tmp_path: Path, voc: Vocabulary, labels: dict[str, bytes], status: str, reason: str
) -> None:
    members = {"a.jpg": picture(), **{f"a.{suffix}": content for suffix, content in labels.items()}}
    members |= {"z.jpg": picture(), "z.cls": b"cat"}
    source = open_shards(write_shard(tmp_path / "s.tar", members), voc, unlabelled="background")
    with pytest.raises(SampleError, match=reason) as caught:
        source.read(source.entries[0])
    assert caught.value.status == status


def test_keys_follow_webdataset(tmp_path: Path, voc: Vocabulary) -> None:
    """Grouped as the webdataset library itself groups them; dots in folder names are then made tar-safe."""
    names = ["a.jpg", "sub/b.jpg", "sub/b.cls", "v1.2/c.jpg", "d.left.jpg", "d.cls", "./e.jpg", "E.JPG", "a.cls"]
    members = {name: picture() if name.lower().endswith("jpg") else b"cat" for name in names}
    path = write_shard(tmp_path / "s.tar", {**members, "._a.jpg": b"a Mac's", "README": b"text"})
    theirs = {sample["__key__"] for sample in webdataset.WebDataset(str(path), shardshuffle=False)}
    ours = [entry.key for entry in open_shards(path, voc).entries]
    assert theirs == {"a", "sub/b", "v1.2/c", "d", "./e", "E"}
    assert ours == sorted(["a", "sub/b", "v1_2/c", "d", "e", "E"])


def test_shards_that_webdataset_wrote(tmp_path: Path, voc: Vocabulary) -> None:
    with webdataset.ShardWriter(str(tmp_path / "s-%03d.tar"), maxcount=2, verbose=0) as writer:
        for number in range(5):
            writer.write({"__key__": f"k{number}", "png": Image.new("RGB", (8, 6), (number, 0, 0)), "cls": number})
    source = open_shards(tmp_path, voc)
    assert [(entry.key, entry.classes) for entry in source.entries] == [(f"k{n}", (n + 1,)) for n in range(5)]
    assert [source.read(entry).image.getpixel((0, 0))[0] for entry in source.entries] == list(range(5))


def test_a_png_beside_a_jpeg_is_its_mask(tmp_path: Path, voc: Vocabulary) -> None:
    members = {
        "a.jpg": picture(),
        "a.png": picture(8, "PNG", "L"),
        "a.cls": b"cat",
        "b.png": picture("blue", "PNG"),
        "b.cls": b"dog",
        "c.webp": picture("blue", "WEBP"),
        "c.png": picture(12, "PNG", "L", (9, 9)),
        "c.cls": b"dog",
    }
    source = open_shards(write_shard(tmp_path / "s.tar", members), voc)
    assert source.has_ground_truth
    a, b, c = source.entries
    truth = source.ground_truth(a, (6, 8))
    assert truth is not None
    assert (truth.labels == 8).all()
    assert source.ground_truth(b) is None
    assert source.read(b).image.getpixel((0, 0)) == (0, 0, 255)
    with pytest.raises(SampleError) as caught:
        source.ground_truth(c, (6, 8))
    assert caught.value.status == "size_mismatch"


@pytest.mark.parametrize(
    ("pattern", "keys"),
    [
        ("", ["a", "b", "c"]),
        ("train-{000..001}.tar", ["a", "b"]),
        ("train-*.tar", ["a", "b"]),
        ("train-00[1].tar", ["b"]),
        ("{train-000,val}.tar", ["a", "c"]),
        ("val.tar", ["c"]),
        ("{val,val}.tar", ["c"]),
    ],
)
def test_patterns(tmp_path: Path, voc: Vocabulary, pattern: str, keys: list[str]) -> None:
    for name, key in (("train-000", "a"), ("train-001", "b"), ("val", "c")):
        write_shard(tmp_path / f"{name}.tar", {f"{key}.jpg": picture(), f"{key}.cls": b"cat"})
    assert [entry.key for entry in open_shards(tmp_path / pattern, voc).entries] == keys


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("a", ["a"]),
        ("{08..11}", ["08", "09", "10", "11"]),
        ("{0..2}-{x,y}", ["0-x", "0-y", "1-x", "1-y", "2-x", "2-y"]),
        ("{a}", ["{a}"]),
        ("{a}{b,c}", ["{a}b", "{a}c"]),
    ],
)
def test_braces(pattern: str, paths: list[str]) -> None:
    assert expand_braces(pattern) == paths


@pytest.mark.parametrize("pattern", ["memory://tars/s-{0..1}.tar", "memory://tars/*.tar", "memory://tars"])
def test_shards_behind_urls(tmp_path: Path, voc: Vocabulary, pattern: str) -> None:
    for number in range(2):
        path = write_shard(tmp_path / "s.tar", {f"k{number}.jpg": picture(), f"k{number}.cls": b"cat"})
        fsspec.filesystem("memory").pipe_file(f"/tars/s-{number}.tar", path.read_bytes())
    source = open_shards(pattern, voc)
    assert [source.read(entry).key for entry in source.entries] == ["k0", "k1"]
    assert all(entry.path.startswith("memory://") for entry in source.entries)


def test_the_same_key_in_two_shards_names_both(tmp_path: Path, voc: Vocabulary) -> None:
    for name in ("x", "y"):
        write_shard(tmp_path / f"{name}.tar", {"a.jpg": picture(), "a.cls": b"cat"})
    with pytest.raises(SourceError, match=r"key 'a' belongs to two images: .*x\.tar: a\.jpg.* and .*y\.tar: a\.jpg"):
        open_shards(tmp_path, voc)


def test_labels_without_an_image_are_recorded(tmp_path: Path, voc: Vocabulary) -> None:
    members = {"a.cls": b"cat", "b.jpg": picture(), "b.cls": b"cat", "README.md": b"text"}
    source = open_shards(write_shard(tmp_path / "s.tar", members), voc)
    assert [entry.key for entry in source.entries] == ["a", "b"]
    with pytest.raises(SampleError, match=r"a\.cls has labels but no image") as caught:
        source.read(source.entries[0])
    assert caught.value.status == "missing"


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (["a.jpg", "a.webp"], "two images of one sample: 'a.jpg' and 'a.webp'"),
        (["a.jpg", "a.JPG"], "holds 'a.JPG' twice"),
        (["a.1.jpg", "a.2.jpg", "a.2.txt"], "'a.1.jpg' and 'a.2.jpg'.* a WebDataset key ends at the name's"),
        (["a.1.jpg", "a.1.txt", "a.1.JPG", "a.2.jpg", "a.2.txt"], "holds 'a.1.JPG' twice"),
        (["a.left.jpg", "a.right.jpg", "a.cls"], "'a.left.jpg' and 'a.right.jpg'"),
    ],
)
@pytest.mark.parametrize("labels", ["xml", "none"])
def test_two_images_of_one_key_are_a_failure_of_their_sample(
    tmp_path: Path, voc: Vocabulary, names: list[str], named: str, labels: str
) -> None:
    members = {name: b"cat" if name.endswith(("txt", "cls")) else picture() for name in [*names, "b.jpg", "b.cls"]}
    source = open_shards(write_shard(tmp_path / "s.tar", members), voc, labels=labels, unlabelled="background")
    with pytest.raises(SampleError, match=named) as caught:
        source.read(source.entries[0])
    assert caught.value.status == "two_images"
    assert source.read(source.entries[1]).key == "b"


@pytest.mark.parametrize(
    ("others", "image", "classes", "mask"),
    [
        ({"a.input.jpg": b"", "a.outputs.txt": b"cat, dog"}, "a.input.jpg", (8, 12), None),
        ({"a.image.jpg": b"", "a.cls": b"7"}, "a.image.jpg", (8,), None),
        ({"a.image.jpg": b"", "a.mask.png": b"", "a.label.cls": b"cat"}, "a.image.jpg", (8,), "a.mask.png"),
        ({"a.jpg": b"", "a.seg.png": b"", "a.txt": b"cat"}, "a.jpg", (8,), "a.seg.png"),
        ({"a.png": b"", "a.gt_mask.png": b"", "a.cls": b"cat"}, "a.png", (8,), "a.gt_mask.png"),
        ({"a.jpg": b"", "a.thumb.jpg": b"", "a.cls": b"cat"}, "a.jpg", (8,), None),
        ({"a.rgb.jpg": b"", "a.depth.jpg": b"", "a.cls": b"cat"}, "a.rgb.jpg", (8,), None),
        ({"a.0.jpg": b"", "a.0.txt": b"cat"}, "a.0.jpg", (8,), None),
        ({"a.jpg_large": b"", "a.cls": b"cat"}, "a.jpg_large", (8,), None),
        ({"a.jpg": b"", "a.json": b'{"width": 8}', "a.cls": b"cat"}, "a.jpg", (8,), None),
        ({"a.jpg": b"", "a.json": b'{"label": "cat"}', "a.caption.txt": b"a dog"}, "a.jpg", (8,), None),
        ({"a.jpg": b"", "a.caption.txt": b"a dog"}, "a.jpg", (), None),
    ],
)
def test_samples_in_other_conventions(
    tmp_path: Path, voc: Vocabulary, others: dict[str, bytes], image: str, classes: tuple[int, ...], mask: str | None
) -> None:
    members = {
        name: content
        or (picture(7, "PNG", "L") if name == mask else picture("blue", "PNG" if name == "a.png" else "JPEG"))
        for name, content in others.items()
    }
    source = open_shards(write_shard(tmp_path / "s.tar", members), voc, unlabelled="background")
    (entry,) = source.entries
    assert (entry.key, entry.image_name) == ("a", image)
    assert source.read(entry).classes == classes
    truth = source.ground_truth(entry)
    assert (truth is None) == (mask is None)
    assert truth is None or (truth.labels == 7).all()


def test_dotted_names_with_labels_each_are_samples_each(tmp_path: Path, voc: Vocabulary) -> None:
    members = {}
    for name, colour, label in (("v1.1", "red", b"cat"), ("v1.2", "blue", b"dog"), ("v2.0", "red", b"cow")):
        members |= {f"{name}.jpg": picture(colour), f"{name}.txt": label}
    source = open_shards(write_shard(tmp_path / "s.tar", members), voc)
    assert [(entry.key, entry.classes) for entry in source.entries] == [("v1_1", (8,)), ("v1_2", (12,)), ("v2", (10,))]
    assert [source.read(entry).original for entry in source.entries[:2]] == [picture("red"), picture("blue")]


def test_labels_in_pickles_are_a_failure_and_never_opened(tmp_path: Path, voc: Vocabulary) -> None:
    path = write_shard(tmp_path / "s.tar", {"a.jpg": picture(), "a.cls.pkl": b"\x80\x04N."})
    source = open_shards(path, voc, unlabelled="background")
    with pytest.raises(SampleError, match=r"a\.cls\.pkl: labels in \.pkl are not read, .* `source\.labels` none"):
        source.read(source.entries[0])
    source = open_shards(path, voc, unlabelled="background", labels="none")
    assert source.read(source.entries[0]).classes == ()


def test_what_is_no_sample_is_counted(tmp_path: Path, voc: Vocabulary) -> None:
    members = {"a.jpg": picture(), "a.cls": b"cat", "a.thumb.jpg": picture()}
    others = ("._a.jpg", ".DS_Store", "__MACOSX/a.jpg", "README", "b.wav", "c.jxl")
    members |= dict.fromkeys(others, b"")
    write_shard(tmp_path / "s/x.tar", members)
    for name in ("index.json", "y.tar.gz", "sub/z.tar"):
        (tmp_path / "s" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "s" / name).write_bytes(b"")
    source = open_shards(tmp_path / "s", voc)
    assert [entry.key for entry in source.entries] == ["a"]
    assert source.left_out.reasons == {
        "hidden": 2,
        "in __MACOSX": 1,
        "without a suffix": 1,
        ".wav": 1,
        "further image of a sample": 1,
        ".jxl (convert to PNG or JPEG)": 1,
        ".json beside the shards": 1,
        ".tar.gz (unpack it to a plain .tar)": 1,
        "folders beside the shards": 1,
    }


def test_links_inside_a_shard_are_followed(tmp_path: Path, voc: Vocabulary) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name, kind, link in (
            ("x/b.jpg", tarfile.SYMTYPE, "../x/a.jpg"),
            ("x/a.jpg", tarfile.REGTYPE, ""),
            ("x/a.cls", tarfile.REGTYPE, ""),
            ("x/b.cls", tarfile.LNKTYPE, "x/a.cls"),
            ("x/c.jpg", tarfile.SYMTYPE, "gone.jpg"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            content = (picture() if name.endswith("jpg") else b"cat") if not link else b""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    source = open_shards(tmp_path / "s.tar", voc)
    assert [source.read(entry).key for entry in source.entries] == ["x/a", "x/b"]
    assert [entry.classes for entry in source.entries] == [(8,), (8,)]
    assert source.left_out.reasons == {"link to what the shard does not hold": 1}


def test_a_member_whose_name_is_no_utf8_is_a_failure(tmp_path: Path, voc: Vocabulary) -> None:
    name = b"caf\xe9".decode(errors="surrogateescape")
    members = {f"{name}.jpg": picture(), f"{name}.cls": b"cat", "b.jpg": picture(), "b.cls": b"cat"}
    source = open_shards(write_shard(tmp_path / "s.tar", members), voc)
    assert [entry.key for entry in source.entries] == ["b", r"caf\xe9"]
    assert source.read(source.entries[0]).classes == (8,)
    with pytest.raises(SampleError, match=r"s\.tar: caf\\xe9\.jpg: the name of the member is no UTF-8") as caught:
        source.read(source.entries[1])
    assert caught.value.status == "undecodable_name"
    str(caught.value).encode()


def test_keys_told_apart_by_shard(tmp_path: Path, voc: Vocabulary) -> None:
    """The hint that the message of equal keys names."""
    for name in ("train-000", "train-001", "v1.2"):
        write_shard(tmp_path / f"{name}.tar", {"0.jpg": picture(), "0.cls": b"cat", "0.png": picture(8, "PNG", "L")})
    with pytest.raises(SourceError, match=r"000\.tar: 0\.jpg.* and .*001\.tar: 0\.jpg.*`source\.key_prefix` shard"):
        open_shards(tmp_path, voc)
    source = open_shards(tmp_path, voc, key_prefix="shard")
    assert [entry.key for entry in source.entries] == ["train-000/0", "train-001/0", "v1_2/0"]
    assert all((source.ground_truth(entry).labels == 8).all() for entry in source.entries)
    for folder in "ab":
        write_shard(tmp_path / f"{folder}/0.tar", {"0.jpg": picture(), "0.cls": b"cat"})
    source = open_shards(tmp_path / "{a,b}/0.tar", voc, key_prefix="shard")
    assert [entry.key for entry in source.entries] == ["a/0/0", "b/0/0"]


@pytest.mark.parametrize("name", ["x [v1]", "a{b,c}", "wh*at?", "10::30", "a#b%20"])
@pytest.mark.parametrize("pattern", ["", "/s-0.tar", "/*.tar", "/s-{0..0}.tar"])
def test_shards_in_folders_of_odd_names(tmp_path: Path, voc: Vocabulary, name: str, pattern: str) -> None:
    write_shard(tmp_path / name / "s-0.tar", {"a.jpg": picture(), "a.cls": b"cat"})
    source = open_shards(f"{tmp_path / name}{pattern}", voc)
    assert [source.read(entry).key for entry in source.entries] == ["a"]


def test_masks_of_a_folder_go_by_image_name_then_by_key(tmp_path: Path, voc: Vocabulary, save_image) -> None:
    members = {f"{name}.image.jpg": picture() for name in ("a", "d/b", "d/c")}
    path = write_shard(tmp_path / "s.tar", members)
    for place, name in enumerate(("a.image", "a", "b", "d/c"), 1):
        save_image(f"masks/{name}.png", place, mode="L")
    source = open_shards(path, voc, masks=str(tmp_path / "masks"))
    assert [int(source.ground_truth(entry).labels.max()) for entry in source.entries] == [1, 3, 4]


def test_every_cut_of_a_shard_is_seen(tmp_path: Path, voc: Vocabulary) -> None:
    """Also between two members, where the shard of a killed writer looks whole to tarfile."""
    members = {f"{key}.{suffix}": b"cat" if suffix == "cls" else picture() for key in "ab" for suffix in ("jpg", "cls")}
    whole = write_shard(tmp_path / "s.tar", members).read_bytes()
    with tarfile.open(tmp_path / "s.tar") as tar:
        end = max(info.offset_data + 512 for info in tar)
    for cut in (*range(0, end, 256), end):
        (tmp_path / "s.tar").write_bytes(whole[:cut])
        with pytest.raises(SourceError, match=r"shard '.*s\.tar'"):
            open_shards(tmp_path / "s.tar", voc)


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path, voc: Vocabulary) -> None:
    path = write_shard(tmp_path / "s.tar", {f"{key}.jpg": picture() for key in "abc"})
    with tarfile.open(path) as tar:
        second = tar.getmembers()[1].offset
    data = bytearray(path.read_bytes())
    data[second + 10] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(SourceError, match=f"damaged or cut off at byte {second}"):
        open_shards(path, voc)


def test_shards_that_are_missing_or_no_tars(tmp_path: Path, voc: Vocabulary) -> None:
    with pytest.raises(SourceError, match=r"no shards match '.*\*\.tar'; `source\.path` needs"):
        open_shards(tmp_path / "*.tar", voc)
    with pytest.raises(SourceError, match=r"no shard '.*s-1\.tar'"):
        open_shards(tmp_path / "s-{1..2}.tar", voc)
    with tarfile.open(tmp_path / "s.tar.gz", "w:gz") as tar:
        tar.add(__file__, "a.py")
    with pytest.raises(SourceError, match=r"is not a plain tar: .*compressed with gzip.*gunzip"):
        open_shards(tmp_path / "s.tar.gz", voc)
    (tmp_path / "s.tar").write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(SourceError, match=r"s\.tar' is not a plain tar"):
        open_shards(tmp_path / "s.tar", voc)


def test_a_shard_cut_after_listing_is_truncated(tmp_path: Path, voc: Vocabulary) -> None:
    path = write_shard(tmp_path / "s.tar", {"a.jpg": picture(), "a.cls": b"cat"})
    source = open_shards(path, voc)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(SampleError) as caught:
        source.read(source.entries[0])
    assert caught.value.status == "truncated"


def test_the_sample_of_voc_as_shards(tmp_path: Path, voc_sample: Path, voc: Vocabulary) -> None:
    labels = json.loads((voc_sample / "image_labels.json").read_text())
    names = sorted(labels)[:6]
    members = {}
    for name in names:
        members[f"{name}.jpg"] = (voc_sample / "JPEGImages" / f"{name}.jpg").read_bytes()
        members[f"{name}.png"] = (voc_sample / "SegmentationClass" / f"{name}.png").read_bytes()
        members[f"{name}.json"] = json.dumps({"names": labels[name]}).encode()
    source = open_shards(write_shard(tmp_path / "s.tar", members), voc)
    assert [entry.key for entry in source.entries] == names
    for entry in source.entries:
        sample = source.read(entry)
        truth = source.ground_truth(entry, (sample.image.height, sample.image.width))
        assert truth is not None
        assert {*np.unique(truth.labels)} - {0, 255} == set(sample.classes)


def test_tars_joined_with_cat_are_refused(tmp_path: Path, voc: Vocabulary) -> None:
    parts = [write_shard(tmp_path / f"{key}.part", {f"{key}.jpg": picture(), f"{key}.cls": b"cat"}) for key in "ab"]
    path = tmp_path / "s.tar"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(SourceError, match=r"is not a plain tar: it goes on after its end at byte \d+, .* tar -Af"):
        open_shards(path, voc)
    path.write_bytes(parts[0].read_bytes() + bytes(3 << 20))
    assert [entry.key for entry in open_shards(path, voc).entries] == ["a"]


@pytest.mark.parametrize("format_", ["gnu", "posix"])
def test_a_sparse_member_is_a_failure_and_its_bytes_are_never_read(
    tmp_path: Path, voc: Vocabulary, format_: str
) -> None:
    for name, content in (("a.jpg", picture()), ("a.cls", b"cat"), ("b.jpg", picture()), ("b.cls", b"dog")):
        (tmp_path / name).write_bytes(content)
    with (tmp_path / "a.seg.bmp").open("wb") as file:
        file.write(picture(7, "BMP", "L"))
        file.truncate(1 << 20)
    names = ["a.seg.bmp", "a.jpg", "a.cls", "b.jpg", "b.cls"]
    subprocess.run(["tar", "-S", f"--format={format_}", "-cf", "s.tar", *names], cwd=tmp_path, check=True)
    source = open_shards(tmp_path / "s.tar", voc, labels="none", unlabelled="background")
    assert source.read(source.entries[1]).original == picture()
    with pytest.raises(SampleError, match=r"s\.tar: a\.seg\.bmp: .* sparse file") as caught:
        source.read(source.entries[0])
    assert caught.value.status == "sparse"
    with pytest.raises(SampleError, match=r"a\.seg\.bmp: .* sparse file"):
        source.ground_truth(source.entries[0])


def test_keys_that_clash_in_one_shard_are_renamed(tmp_path: Path, voc: Vocabulary) -> None:
    names = (normalize("NFC", "é"), normalize("NFD", "é"))
    path = write_shard(tmp_path / "s.tar", {f"{name}.jpg": picture() for name in names})
    with pytest.raises(SourceError, match=r"belongs to two images: .*; rename the members of one of them"):
        open_shards(path, voc)


def test_a_field_that_comes_twice_is_a_failure(tmp_path: Path, voc: Vocabulary) -> None:
    members = {"a.jpg": picture(), "a.json": b'{"labels": ["cat"], "labels": ["dog"]}', "b.jpg": picture()}
    source = open_shards(write_shard(tmp_path / "s.tar", members | {"b.cls": b"cat"}), voc)
    assert [entry.classes for entry in source.entries] == [(), (8,)]
    with pytest.raises(SampleError, match=r"a\.json: field 'labels' is repeated in one object; keep one of them"):
        source.read(source.entries[0])
