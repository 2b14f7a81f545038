"""Labels in the forms in which people have them, through the real command."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from pseudolabel.vocabulary import load_vocabulary
from tests.e2e.commands import call, expect, samples
from tests.e2e.conftest import Shapes

NAMES = load_vocabulary("shapes").names[1:]
FEW = ("--source.limit", "2", "--work.unit", "2")


def true_labels(shapes: Shapes) -> dict[str, list[str]]:
    labels: dict[str, list[str]] = json.loads((shapes.data / "image_labels.json").read_text())
    return {key: labels[key] for key in ("val_000001", "val_000002")}


def read_names(out: Path) -> dict[str, set[str]]:
    return {key: set(json.loads(members["json"])["names"]) for key, members in samples(out / "cams").items()}


def one_hot(names: list[str]) -> list[int]:
    return [int(name in names) for name in NAMES]


@pytest.mark.parametrize("form", ["label file", "table", "parquet"])
def test_one_hot_vectors_give_the_true_classes(shapes: Shapes, tmp_path: Path, form: str) -> None:
    truth = true_labels(shapes)
    if form == "label file":
        vectors = {f"JPEGImages/{key}.jpg": one_hot(names) for key, names in truth.items()}
        (tmp_path / "labels.json").write_text(json.dumps(vectors))
        arguments = [*shapes.at(tmp_path), "--source.labels", str(tmp_path / "labels.json"), *FEW]
    else:
        rows = [
            {"photo": str(shapes.data / f"JPEGImages/{key}.jpg"), "tags": one_hot(names), "key": key}
            for key, names in truth.items()
        ]
        path = tmp_path / "t.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        if form == "parquet":
            path = tmp_path / "t.parquet"
            images = [{"bytes": Path(str(row["photo"])).read_bytes(), "path": f"{row['key']}.jpg"} for row in rows]
            parquet.write_table(pa.table({"photo": images, "tags": [row["tags"] for row in rows]}), path)
        columns = ("--source.columns", "image=photo,labels=tags")
        arguments = [*shapes.at(tmp_path), "--source.kind", "table", "--source.path", str(path), *columns, *FEW]
    expect(0, call("cams", *arguments))
    assert read_names(tmp_path) == {key: set(names) for key, names in truth.items()}


def test_labels_without_a_class_are_refused_before_the_model_is_loaded(shapes: Shapes, tmp_path: Path) -> None:
    arguments = ("--vocabulary", "dog, cat", "--model.name", str(tmp_path / "no model"))
    outcome = expect(1, call("cams", *shapes.at(tmp_path), *arguments))
    assert outcome.is_clean_error()
    assert f"no image of '{shapes.data}' has labels that fit vocabulary 'custom' (dog, cat)" in outcome.err
    assert "The first: " in outcome.err
    assert any(f"unknown class '{name}'" in outcome.err for name in NAMES)


def test_captions_match_classes_in_other_spellings(shapes: Shapes, tmp_path: Path) -> None:
    lines: dict[str, list[dict[str, str]]] = {"as written": [], "spelled": []}
    for key, names in true_labels(shapes).items():
        for name in names:
            caption = f"a photograph of {name} lying on grass"
            lines["as written"].append({"key": key, "class": name, "caption": caption})
            lines["spelled"].append({"key": f"images/{key}.jpg", "class": name.upper(), "caption": caption})
    made = []
    for form, records in lines.items():
        path, out = tmp_path / f"{form} [v1].jsonl", tmp_path / form
        path.write_text("\ufeff" + "".join(json.dumps(record) + "\r\n" for record in records), encoding="utf-8")
        expect(0, call("cams", *shapes.at(out), "--captions.source", path, *FEW))
        made.append(samples(out / "cams"))
    assert made[0] == made[1]
