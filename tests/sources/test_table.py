import csv
import io
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from unicodedata import normalize

import fsspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageColor
from pyarrow import parquet

from pseudolabel.config import SourceConfig
from pseudolabel.errors import SampleError, SettingError, SourceError
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
    with pytest.raises(
        SampleError, match=r"t\.\w+ (line|row) \d: no labels; `source\.unlabelled` background"
    ) as caught:
        source.read(source.entries[0])
    assert caught.value.status == "unlabelled"
    assert open_table(path, voc, unlabelled="background").read(source.entries[0]).classes == ()


def test_missing_columns_are_told_with_those_found(tmp_path: Path, voc: Vocabulary, suffix: str) -> None:
    path = write_table(tmp_path / f"t{suffix}", [{"file": "a.jpg", "labels": ["cat"]}])
    with pytest.raises(
        SourceError, match=rf"t{suffix}.*no column 'image' or 'file_name'; found 'file', 'labels'; .*`source\.columns`"
    ):
        open_table(path, voc)


def test_a_missing_table_is_named(tmp_path: Path, voc: Vocabulary, suffix: str) -> None:
    with pytest.raises(SourceError, match=rf"no file '.*t{suffix}'; `source\.path` needs a table"):
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
    status, message = first.problem.status, str(first.problem)
    assert status == "unknown_class"
    assert first.origin in message
    assert "did you mean 'horse'" in message
    assert second.problem is None


def test_a_mask_that_is_named_must_be_there(tmp_path: Path, voc: Vocabulary, suffix: str) -> None:
    path = write_table(tmp_path / f"t{suffix}", [{"image": "a.jpg", "labels": ["cat"], "mask": "gone.png"}])
    source = open_table(path, voc)
    with pytest.raises(SampleError, match=r"gone\.png") as caught:
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
    with pytest.raises(SampleError) as caught:
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
        ("", "no column 'image' or 'file_name'; found none"),
        ("images labels\n", "no column 'image' or 'file_name'; found 'images labels'"),
        ("image,image,labels\n", "two columns are called 'image'; rename one"),
        ("image;labels\na.jpg;cat;dog\n", "line 2: 3 cells but 2 columns; put quotes around cells that hold ';'"),
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
        ('{"image": "a.jpg", "labels": []}\n{"image": \n', "line 2: not a row of images and labels, invalid JSON"),
        ("[1]\n", "line 1: not a row of images and labels, but a JSON list"),
        (
            '{"image": "a.jpg", "labels": []}\n\n{"image": "b.jpg", "tags": []}\n',
            "line 3: no column 'labels' or 'label'; found 'image', 'tags'; .* `source.columns` image=path,labels=tags",
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


def picture(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(file, "PNG")
    return file.getvalue()


COLOURS = ["red", "lime", "blue", "white", "black"]


@pytest.mark.parametrize("compression", ["snappy", "none"])
@pytest.mark.parametrize("group", [2, 100])
def test_images_whose_bytes_are_in_the_table(tmp_path: Path, voc: Vocabulary, compression: str, group: int) -> None:
    rows = [
        {"image": {"bytes": picture(colour), "path": f"{colour}.png"}, "label": number, "more": 1}
        for number, colour in enumerate(COLOURS)
    ]
    table = pa.Table.from_pylist(rows)
    names = ["cat", "dog", "sofa", "bus", "bird"]
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, tmp_path / "t.parquet", row_group_size=group, compression=compression)
    source = open_table(tmp_path / "t.parquet", voc)
    assert {entry.key: entry.classes for entry in source.entries} == {
        colour: (voc.index(name),) for colour, name in zip(COLOURS, names, strict=True)
    }
    source = pickle.loads(pickle.dumps(source))
    for entry in [*source.entries, *reversed(source.entries)]:
        assert source.read(entry).image.getpixel((0, 0)) == ImageColor.getrgb(entry.key)


def test_embedded_images_without_names_of_their_own(tmp_path: Path, voc: Vocabulary) -> None:
    for names in (["a.png", "a.png"], ["a.png", None], None):
        rows = [
            {"image": {"bytes": picture(colour), **({"path": names[number]} if names else {})}, "labels": ["cat"]}
            for number, colour in enumerate(["red", "blue"])
        ]
        parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
        source = open_table(tmp_path / "t.parquet", voc)
        assert [entry.key for entry in source.entries] == ["row-00000001", "row-00000002"]
        assert source.read(source.entries[1]).image.getpixel((0, 0)) == (0, 0, 255)


def test_embedded_masks_and_missing_bytes(tmp_path: Path, voc: Vocabulary) -> None:
    Image.new("L", (8, 6), 8).save(tmp_path / "mask.png")
    mask = {"bytes": (tmp_path / "mask.png").read_bytes(), "path": None}
    rows = [
        {"image": {"bytes": picture("red"), "path": "a.png"}, "labels": ["cat"], "mask": mask},
        {"image": {"bytes": None, "path": "b.png"}, "labels": ["cat"], "mask": mask},
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    source = open_table(tmp_path / "t.parquet", voc)
    truth = source.ground_truth(source.entries[0], (6, 8))
    assert truth is not None
    assert (truth.labels == 8).all()
    with pytest.raises(SampleError, match=r"t\.parquet' row 2 holds no bytes in column 'image\.bytes'") as caught:
        source.read(source.entries[1])
    assert caught.value.status == "missing"


def test_parquet_images_by_path_in_a_struct(tmp_path: Path, voc: Vocabulary, save_image) -> None:
    save_image("a.png", "blue")
    image = pa.array([{"bytes": None, "path": "a.png"}], pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    parquet.write_table(pa.table({"image": image, "labels": [["cat"]]}), tmp_path / "t.parquet")
    source = open_table(tmp_path / "t.parquet", voc)
    assert source.entries[0].key == "a"
    assert source.read(source.entries[0]).image.getpixel((0, 0)) == (0, 0, 255)


@pytest.mark.parametrize(
    ("feature", "values"),
    [
        ({"names": ["cat", "dog"], "_type": "ClassLabel"}, [1, -1, None]),
        ({"feature": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "_type": "List"}, [[1], [], None]),
        ([{"names": ["cat", "dog"], "_type": "ClassLabel"}], [[1], [-1], None]),
    ],
)
def test_class_labels_of_hugging_face(tmp_path: Path, voc: Vocabulary, feature: object, values: list[object]) -> None:
    table = pa.table({"file_name": ["a.jpg", "b.jpg", "c.jpg"], "labels": values})
    features = {"file_name": {"dtype": "string", "_type": "Value"}, "labels": feature}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, tmp_path / "t.parquet")
    assert [entry.classes for entry in open_table(tmp_path / "t.parquet", voc).entries] == [(12,), (), ()]


def test_a_parquet_label_column_of_images_is_no_label(tmp_path: Path, voc: Vocabulary) -> None:
    rows = [{"image": {"bytes": b"a", "path": "a.jpg"}, "label": {"bytes": b"b", "path": "a.png"}}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    with pytest.raises(SourceError, match=r"column 'label' holds struct values, no labels; name .* labels=COLUMN"):
        open_table(tmp_path / "t.parquet", voc)


@pytest.mark.slow
def test_what_hugging_faces_datasets_writes(tmp_path: Path, voc: Vocabulary) -> None:
    """The real library, in its own process: it brings a thread pool and settings of its own."""
    (tmp_path / "data/cat").mkdir(parents=True)
    (tmp_path / "data/dog").mkdir()
    for name in ("cat/a", "cat/b", "dog/a"):
        (tmp_path / f"data/{name}.png").write_bytes(picture("red" if "cat" in name else "blue"))
    program = (
        "import datasets, sys\n"
        "found = datasets.load_dataset('imagefolder', data_dir=sys.argv[1], cache_dir=sys.argv[2])['train']\n"
        "found.to_parquet(sys.argv[3])\n"
    )
    arguments = [tmp_path / "data", tmp_path / "cache", tmp_path / "t.parquet"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", program, *map(str, arguments)], check=True, env=environment)
    source = open_table(tmp_path / "t.parquet", voc)
    found = [(entry.classes, source.read(entry).image.getpixel((0, 0))) for entry in source.entries]
    assert sorted(found) == [((8,), (255, 0, 0)), ((8,), (255, 0, 0)), ((12,), (0, 0, 255))]


def test_rows_of_one_image_are_united(tmp_path: Path, voc: Vocabulary, suffix: str) -> None:
    rows: list[Row] = [
        {"image": "a.jpg", "labels": ["dog"], "mask": "a.png"},
        {"image": "b.jpg", "labels": ["cat"], "mask": ""},
        {"image": "a.jpg", "labels": ["cat"], "mask": "a.png"},
        {"image": "a.jpg", "labels": ["dog"], "mask": ""},
    ]
    path = write_table(tmp_path / f"t{suffix}", rows)
    assert {entry.key: entry.classes for entry in open_table(path, voc).entries} == {"a": (8, 12), "b": (8,)}
    a, _ = open_table(write_table(path, [*rows, {"image": "a.jpg", "labels": ["hors"], "mask": ""}]), voc).entries
    assert a.classes == ()
    assert a.problem is not None
    assert re.search(r"(line|row) \d: unknown class 'hors'", str(a.problem))
    write_table(path, [*rows, {"image": "a.jpg", "labels": ["cat"], "mask": "c.png"}])
    with pytest.raises(
        SourceError, match=r"(line|row) \d: mask '.*c\.png' of 'a', for which another row names .*a\.png'"
    ):
        open_table(path, voc)


@pytest.mark.parametrize("named", ["image=Path of it,labels=tags", " labels = TAGS , image = path of it "])
def test_columns_of_other_names(tmp_path: Path, voc: Vocabulary, suffix: str, named: str) -> None:
    rows: list[Row] = [{"tags": ["cat"], "image": "no path", "Path of it": "a.jpg", "labels": ["dog"]}]
    if suffix == ".csv":
        (tmp_path / "t.csv").write_text("tags,image,Path of it,labels\ncat,no path,a.jpg,dog\n")
    else:
        write_table(tmp_path / f"t{suffix}", rows)
    (entry,) = open_table(tmp_path / f"t{suffix}", voc, columns=named).entries
    assert (entry.key, entry.classes) == ("a", (8,))
    with pytest.raises(
        SourceError, match=r"no column 'class'; found 'tags', 'image', 'Path of it', 'labels'; .*source\.columns"
    ):
        open_table(tmp_path / f"t{suffix}", voc, columns="labels=class")


def test_a_mistyped_column_is_told_with_those_of_a_table_with_tabs(tmp_path: Path, voc: Vocabulary) -> None:
    (tmp_path / "t.csv").write_text("Pic Path\tTags here\na.jpg\tcat\n")
    with pytest.raises(SourceError, match="no column 'Tag'; found 'Pic Path', 'Tags here'; say which"):
        open_table(tmp_path / "t.csv", voc, columns="image=Pic Path,labels=Tag")


@pytest.mark.parametrize("text", ["path", "picture=path", "image=", "image=a,image=b", ",", "image=path,"])
def test_columns_that_are_not_named_right(tmp_path: Path, voc: Vocabulary, text: str) -> None:
    with pytest.raises(SettingError, match=r"`source\.columns` '.*' .*(PART=COLUMN, such as image=path|image twice)"):
        open_table(tmp_path / "t.csv", voc, columns=text)


def test_labels_need_no_column_where_they_come_from_elsewhere(tmp_path: Path, voc: Vocabulary, suffix: str) -> None:
    path = write_table(tmp_path / f"t{suffix}", [{"image": "a.jpg", "labels": ["cat"]}])
    if suffix == ".csv":
        path.write_text("file_name\na.jpg\n")
    (tmp_path / "labels.json").write_text('{"a.jpg": ["dog"]}')
    (entry,) = open_table(path, voc, labels=str(tmp_path / "labels.json")).entries
    assert entry.classes == (12,)
    (entry,) = open_table(path, voc, labels="none").entries
    assert entry.classes == ()


@pytest.mark.parametrize(
    ("content", "classes"),
    [
        (b"file_name,label\na.jpg,cat\n", (8,)),
        (b"image, labels\na.jpg, cat\n", (8,)),
        (b" Image ,LABELS\na.jpg,cat\n", (8,)),
        (b"image;labels\na.jpg;cat,dog\n", (8, 12)),
        (b"image\tlabels\na.jpg\tcat,dog\n", (8, 12)),
        (b"image,labels\na.jpg,\"['cat', 'dog']\"\n", (8, 12)),
        (b"image,labels\na.jpg,7.0\n", (8,)),
        ("\ufeffimage,labels\r\na.jpg,cat\r\n".encode("utf-16-le"), (8,)),
        ("\ufeffimage,labels\na.jpg,cat\n".encode("utf-16-be"), (8,)),
    ],
)
def test_csv_as_people_write_it(tmp_path: Path, voc: Vocabulary, content: bytes, classes: tuple[int, ...]) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    (entry,) = open_table(tmp_path / "t.csv", voc).entries
    assert (entry.key, entry.classes, entry.path) == ("a", classes, f"{tmp_path}/a.jpg")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("image,labels\na.jpg,étoile\n".encode("cp1252"), r"not UTF-8 text .*iconv -f ENCODING -t UTF-8"),
        ("image,labels\na.jpg,cat\n".encode("utf-16-le"), "zero bytes, so it is not text; save it as UTF-8"),
    ],
)
def test_csv_in_other_encodings(tmp_path: Path, voc: Vocabulary, content: bytes, reason: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(SourceError, match=reason):
        open_table(tmp_path / "t.csv", voc)


def test_paths_as_windows_writes_them(tmp_path: Path, voc: Vocabulary, save_image) -> None:
    save_image("images/a.png", "blue")
    save_image("b\\c.png", "red")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/t.csv").write_text("image,labels\n..\\images\\a.png,cat\n../b\\c.png,cat\n")
    source = open_table(tmp_path / "sub/t.csv", voc)
    assert [entry.key for entry in source.entries] == ["b\\c", "images/a"]
    assert [source.read(entry).image.getpixel((0, 0))[2] for entry in source.entries] == [0, 255]


def test_urls_that_differ_in_the_query_are_told_apart_by_a_key(tmp_path: Path, voc: Vocabulary) -> None:
    urls = ["https://host/a.jpg?w=640", "https://host/a.jpg?w=1280"]
    rows: list[Row] = [{"image": url, "labels": ["cat"]} for url in urls]
    with pytest.raises(SourceError, match=r"belongs to two images: .*w=640.*w=1280.* keys .* in a column named key"):
        open_table(write_table(tmp_path / "t.csv", rows), voc)
    rows = [{**row, "key": f"a{number}"} for number, row in enumerate(rows)]
    source = open_table(write_table(tmp_path / "t.csv", rows), voc)
    assert [(entry.key, entry.path) for entry in source.entries] == [("a0", urls[0]), ("a1", urls[1])]


@pytest.mark.slow
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
    with pytest.raises(SourceError, match=r"t\.xlsx' is no table; .* \.csv, \.tsv, \.jsonl, \.parquet"):
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
    with pytest.raises(SampleError) as caught:
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


@pytest.mark.parametrize("key", ["__a__/b", "a\0b", "a\nb", "a\ud800b"])
def test_keys_that_would_lose_the_sample_are_refused(tmp_path: Path, voc: Vocabulary, key: str) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps({"image": "a.jpg", "labels": ["cat"], "key": key}))
    with pytest.raises(SourceError, match=r"t\.jsonl line 1: key '.*' cannot name a tar member") as caught:
        open_table(tmp_path / "t.jsonl", voc)
    str(caught.value).encode()


@pytest.mark.parametrize(("name", "key"), [("a\0b.jpg", r"a\x00b"), ("a\ud800b.jpg", r"a\ud800b")])
def test_a_path_that_no_file_can_have_is_one_failure(
    tmp_path: Path, voc: Vocabulary, save_image, name: str, key: str
) -> None:
    save_image("good.jpg")
    rows = [{"image": image, "labels": ["cat"]} for image in (name, "good.jpg")]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = open_table(tmp_path / "t.jsonl", voc)
    assert [entry.key for entry in source.entries] == [key, "good"]
    assert source.read(source.entries[1]).classes == (8,)
    with pytest.raises(SampleError, match="cannot be read") as caught:
        source.read(source.entries[0])
    assert "\0" not in str(caught.value)
    str(caught.value).encode()


def test_a_row_with_a_field_twice_is_refused(tmp_path: Path, voc: Vocabulary) -> None:
    (tmp_path / "t.jsonl").write_text('{"image": "a.jpg", "labels": ["cat"], "labels": ["dog"]}')
    with pytest.raises(
        SourceError,
        match=r"t\.jsonl line 1: not a row of images and labels, invalid JSON .field 'labels' is repeated",
    ):
        open_table(tmp_path / "t.jsonl", voc)
