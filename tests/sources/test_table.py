import csv
import json
import subprocess
import sys
from pathlib import Path
from unicodedata import normalize

import fsspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from pseudolabel.config import SourceConfig
from pseudolabel.sources.entry import BadSample, SourceError
from pseudolabel.sources.source import Source, open_source
from pseudolabel.sources.table import list_table
from pseudolabel.vocabulary import Vocabulary, load_vocabulary

Row = dict[str, object]


def write_table(path: Path, rows: list[Row]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows({**row, "labels": ";".join(map(str, row["labels"]))} for row in rows)  # type: ignore[call-overload]
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def open_table(path: Path | str, vocabulary: Vocabulary, **settings: object) -> Source:
    return open_source(SourceConfig(kind="table", path=str(path), **settings), vocabulary)


@pytest.fixture(params=[".csv", ".jsonl", ".parquet"])
def suffix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_images_labels_keys_and_masks(tmp_path: Path, voc: Vocabulary, suffix: str, save_image) -> None:
    save_image("images/b.png", "blue")
    save_image("images/a.jpg", "red")
    save_image("masks/a.png", 8, mode="L")
    rows: list[Row] = [
        {"image": "images/b.png", "labels": ["Dining Table", "cat"], "key": "first", "mask": ""},
        {"image": str(tmp_path / "images/a.jpg"), "labels": ["kitten"], "key": "second/one", "mask": "masks/a.png"},
    ]
    source = open_table(write_table(tmp_path / f"t{suffix}", rows), voc)
    assert [(entry.key, entry.classes) for entry in source.entries] == [("first", (8, 11)), ("second/one", (8,))]
    assert [source.read(entry).image.getpixel((0, 0))[2] > 200 for entry in source.entries] == [True, False]
    assert source.ground_truth(source.entries[0]) is None
    truth = source.ground_truth(source.entries[1])
    assert truth is not None
    assert (truth.labels == 8).all()


def test_keys_come_from_paths_where_there_is_no_key(tmp_path: Path, voc: Vocabulary, suffix: str) -> None:
    rows: list[Row] = [{"image": f"{name}.v1.jpg", "labels": ["cat"]} for name in ("b/x", "a/x")]
    assert [entry.key for entry in open_table(write_table(tmp_path / f"t{suffix}", rows), voc).entries] == [
        "a/x_v1",
        "b/x_v1",
    ]


def test_images_without_labels(tmp_path: Path, voc: Vocabulary, suffix: str, save_image) -> None:
    save_image("a.jpg")
    rows: list[Row] = [{"image": "a.jpg", "labels": []}, {"image": "b.jpg", "labels": ["cat"]}]
    path = write_table(tmp_path / f"t{suffix}", rows)
    source = open_table(path, voc)
    with pytest.raises(BadSample, match=r"t\.\w+ (line|row) \d: no labels; --source\.unlabelled background") as caught:
        source.read(source.entries[0])
    assert caught.value.status == "unlabelled"
    assert open_table(path, voc, unlabelled="background").read(source.entries[0]).classes == ()


def test_missing_columns_are_told_with_those_found(tmp_path: Path, voc: Vocabulary, suffix: str) -> None:
    path = write_table(tmp_path / f"t{suffix}", [{"file": "a.jpg", "labels": ["cat"]}])
    with pytest.raises(SourceError, match=rf"t{suffix}.*no column 'image'; found file, labels; add it or rename"):
        open_table(path, voc)


def test_a_missing_table_is_named(tmp_path: Path, voc: Vocabulary, suffix: str) -> None:
    with pytest.raises(SourceError, match=rf"no file '.*t{suffix}'; --source\.path needs a table"):
        open_table(tmp_path / f"t{suffix}", voc)


def test_repeated_keys_name_both_rows(tmp_path: Path, voc: Vocabulary, suffix: str) -> None:
    rows: list[Row] = [{"image": f"{name}.jpg", "labels": ["cat"]} for name in ("a.b", "c", "a_b")]
    with pytest.raises(SourceError, match=r"key 'a_b' belongs to two images: .* (line|row) \d.* and .*(line|row) \d"):
        open_table(write_table(tmp_path / f"t{suffix}", rows), voc)


@pytest.mark.parametrize("key", ["a.b", "/a", "a/", "a//b", "../a"])
def test_keys_of_the_user_are_not_changed_but_refused(tmp_path: Path, voc: Vocabulary, suffix: str, key: str) -> None:
    path = write_table(tmp_path / f"t{suffix}", [{"image": "a.jpg", "labels": ["cat"], "key": key}])
    with pytest.raises(SourceError, match=r"t\.\w+ (line 1|line 2|row 1): key '.*' cannot name a tar member"):
        open_table(path, voc)


def test_rows_without_an_image_are_named(tmp_path: Path, voc: Vocabulary, suffix: str) -> None:
    rows: list[Row] = [{"image": "a.jpg", "labels": ["cat"]}, {"image": "", "labels": ["cat"]}]
    with pytest.raises(SourceError, match=r"(line 3|line 2|row 2): column 'image' holds nothing"):
        open_table(write_table(tmp_path / f"t{suffix}", rows), voc)


def test_unknown_names_are_problems_of_their_row_alone(tmp_path: Path, voc: Vocabulary, suffix: str) -> None:
    rows: list[Row] = [{"image": "a.jpg", "labels": ["hors"]}, {"image": "b.jpg", "labels": ["dog"]}]
    first, second = open_table(write_table(tmp_path / f"t{suffix}", rows), voc).entries
    assert first.problem is not None
    status, message = first.problem
    assert status == "unknown_class"
    assert first.origin in message
    assert "did you mean 'horse'" in message
    assert second.problem is None


def test_a_mask_that_is_named_must_be_there(tmp_path: Path, voc: Vocabulary, suffix: str) -> None:
    path = write_table(tmp_path / f"t{suffix}", [{"image": "a.jpg", "labels": ["cat"], "mask": "gone.png"}])
    source = open_table(path, voc)
    with pytest.raises(BadSample, match=r"gone\.png") as caught:
        source.ground_truth(source.entries[0])
    assert caught.value.status == "missing"


def test_masks_from_a_folder_have_the_keys_for_names(tmp_path: Path, voc: Vocabulary, suffix: str, save_image) -> None:
    save_image("masks/x/a.png", 3, mode="L")
    rows: list[Row] = [{"image": f"x/{name}.jpg", "labels": ["cat"]} for name in "ab"]
    source = open_table(write_table(tmp_path / f"t{suffix}", rows), voc, masks=str(tmp_path / "masks"))
    truth = source.ground_truth(source.entries[0])
    assert truth is not None
    assert (truth.labels == 3).all()
    assert source.ground_truth(source.entries[1]) is None


def test_tables_and_images_behind_urls(voc: Vocabulary, save_image) -> None:
    files = fsspec.filesystem("memory")
    files.pipe_file("/set/images/a.png", save_image("a.png").read_bytes())
    files.pipe_file("/set/t.csv", b"image,labels\nimages/a.png,cat\nmemory://set/gone.png,cat\n")
    source = open_table("memory://set/t.csv", voc)
    present, gone = sorted(source.entries, key=lambda entry: "gone" in entry.path)
    assert present.path == "memory://set/images/a.png"
    assert source.read(present).image.size == (8, 6)
    with pytest.raises(BadSample) as caught:
        source.read(gone)
    assert caught.value.status == "missing"


@pytest.mark.parametrize("path", ["https://host/a.jpg", "nonsense://a/b.jpg"])
def test_urls_are_kept(tmp_path: Path, voc: Vocabulary, path: str) -> None:
    (entry,) = open_table(write_table(tmp_path / "t.csv", [{"image": path, "labels": ["cat"]}]), voc).entries
    assert entry.path == path


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("image,labels\na.jpg,cat,dog\n", "line 2: 3 cells but 2 columns; put quotes"),
        ("image,labels\n\na.jpg\n", "line 3: 1 cells but 2 columns"),
        ('image,labels\na.jpg,"cat\n', "line 2: unexpected end of data"),
        ("", "no column 'image'; found none"),
        ("image;labels\n", "no column 'image'; found image;labels"),
        ("image,labels\n", "no images in"),
    ],
)
def test_broken_csv(tmp_path: Path, voc: Vocabulary, content: str, reason: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(SourceError, match=reason):
        open_table(tmp_path / "t.csv", voc)


def test_csv_as_spreadsheets_write_it(tmp_path: Path, voc: Vocabulary) -> None:
    (tmp_path / "t.csv").write_bytes('\ufeffid,labels,image\r\n1,"cat, dog","ä,b.jpg"\r\n2,7,c.jpg\r\n'.encode())
    entries = open_table(tmp_path / "t.csv", voc).entries
    assert [(entry.key, entry.classes) for entry in entries] == [("c", (8,)), ("ä,b", (8, 12))]
    assert entries[0].origin.endswith("t.csv line 3")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"image": "a.jpg", "labels": []}\n{"image": \n', "line 2: not JSON"),
        ("[1]\n", "line 1: a JSON list where an object"),
        (
            '{"image": "a.jpg", "labels": []}\n\n{"image": "b.jpg", "label": []}\n',
            "line 3: no column 'labels'; found image",
        ),
        ('{"image": 3, "labels": []}\n', "line 1: column 'image' holds int 3"),
    ],
)
def test_broken_jsonl(tmp_path: Path, voc: Vocabulary, content: str, reason: str) -> None:
    (tmp_path / "t.jsonl").write_text(content)
    with pytest.raises(SourceError, match=reason):
        open_table(tmp_path / "t.jsonl", voc)


def test_jsonl_lines_end_at_newlines_alone(tmp_path: Path, voc: Vocabulary) -> None:
    rows: list[Row] = [{"image": "a\u2028b.jpg", "labels": ["cat"]}, {"image": "c\x85.jpg", "labels": [7, "dog"]}]
    entries = open_table(write_table(tmp_path / "t.jsonl", rows), voc).entries
    assert [entry.classes for entry in entries] == [(8,), (8, 12)]


@pytest.mark.parametrize(
    "labels", [pa.array(["cat;dog", None]), pa.array([[7, 11], None]), pa.array([["cat", "dog"], []])]
)
def test_parquet_types(tmp_path: Path, voc: Vocabulary, labels: pa.Array) -> None:
    images = pa.array(["a.jpg", "b.jpg"]).dictionary_encode()
    parquet.write_table(pa.table({"other": [1, 2], "labels": labels, "image": images}), tmp_path / "t.parquet")
    assert [entry.classes for entry in open_table(tmp_path / "t.parquet", voc).entries] == [(8, 12), ()]


def test_parquet_that_is_none_or_holds_no_paths(tmp_path: Path, voc: Vocabulary) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(SourceError, match=r"t\.parquet' is not a readable Parquet file"):
        open_table(tmp_path / "t.parquet", voc)
    embedded = [{"image": {"bytes": b"\xff\xd8", "path": "a.jpg"}, "labels": ["cat"]}]
    parquet.write_table(pa.Table.from_pylist(embedded), tmp_path / "t.parquet")
    with pytest.raises(SourceError, match=r"row 1: column 'image' holds dict .* it needs a path or URL"):
        open_table(tmp_path / "t.parquet", voc)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path) -> None:
    """In a process of its own, where importing pyarrow fails as it does when it is not installed."""
    write_table(tmp_path / "t.parquet", [{"image": "a.jpg", "labels": ["cat"]}])
    program = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from pseudolabel.config import SourceConfig\n"
        "from pseudolabel.sources.source import open_source\n"
        "from pseudolabel.vocabulary import load_vocabulary\n"
        f"open_source(SourceConfig(kind='table', path={str(tmp_path / 't.parquet')!r}), load_vocabulary('voc'))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert "Parquet needs pyarrow: pip install 'pseudolabel[parquet]'" in run.stderr.splitlines()[-1]


def test_other_files_are_no_tables(tmp_path: Path, voc: Vocabulary) -> None:
    (tmp_path / "t.xlsx").write_bytes(b"")
    with pytest.raises(SourceError, match=r"t\.xlsx' is no table; .* \.csv, \.jsonl, \.parquet"):
        open_table(tmp_path / "t.xlsx", voc)


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="./"), min_size=1).filter(str.strip)
VOC = load_vocabulary("voc")


@given(st.dictionaries(NAMES, st.lists(st.sampled_from(VOC.names[1:]), unique=True), min_size=1, max_size=5))
def test_all_kinds_of_table_say_the_same(
    tmp_path_factory: pytest.TempPathFactory, labels: dict[str, list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("tables")
    rows: list[Row] = [{"image": f"{name}.jpg", "labels": names} for name, names in labels.items()]
    expected = [(normalize("NFC", name), tuple(sorted(map(VOC.index, names)))) for name, names in labels.items()]
    for suffix in (".csv", ".jsonl", ".parquet"):
        path = str(write_table(folder / f"t{suffix}", rows))
        entries = list_table(SourceConfig(kind="table", path=path), VOC).entries
        assert [(entry.key, entry.classes) for entry in entries] == expected


def test_a_table_is_listed_without_opening_images(tmp_path: Path, voc: Vocabulary) -> None:
    """None of these images exists, which only reading one finds out."""
    with (tmp_path / "t.csv").open("w") as file:
        file.write("image,labels\n")
        file.writelines(f"images/{number:06d}.jpg,cat;dog\n" for number in range(100_000))
    source = open_table(tmp_path / "t.csv", voc)
    assert len(source.entries) == 100_000
    with pytest.raises(BadSample) as caught:
        source.read(source.entries[-1])
    assert caught.value.status == "missing"


def test_the_sample_of_voc_as_a_table(tmp_path: Path, voc_sample: Path, voc: Vocabulary) -> None:
    labels = json.loads((voc_sample / "image_labels.json").read_text())
    rows: list[Row] = [
        {
            "image": str(voc_sample / "JPEGImages" / f"{name}.jpg"),
            "labels": names,
            "key": name,
            "mask": str(voc_sample / "SegmentationClass" / f"{name}.png"),
        }
        for name, names in labels.items()
    ]
    source = open_table(write_table(tmp_path / "t.jsonl", rows), voc)
    assert len(source.entries) == len(labels)
    for entry in source.entries[:5]:
        sample = source.read(entry)
        assert [voc.names[index] for index in sample.classes] == sorted(labels[entry.key], key=voc.index)
        with Image.open(entry.path) as image:
            assert source.ground_truth(entry, (image.height, image.width)) is not None
