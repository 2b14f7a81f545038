"""Exports of a real run, by the command: classes come from what the run itself has written."""

import json
from pathlib import Path

import pytest

from pseudolabel.exports.formats import FORMATS
from pseudolabel.vocabulary import load_vocabulary
from tests.e2e.commands import call, expect
from tests.e2e.conftest import IMAGES, Shapes


@pytest.mark.parametrize("name", FORMATS)
def test_a_run_is_exported_in_every_format(shapes: Shapes, tmp_path: Path, name: str) -> None:
    done = expect(0, call("export", shapes.out, "--to", name, "--out", tmp_path / name, "--split", "0.75"))
    counts = json.loads(done.out.splitlines()[0])
    assert (counts["samples"], sum(counts["splits"].values()), counts["statuses"]) == (IMAGES, IMAGES, {})
    classes = json.loads((tmp_path / name / "classes.json").read_text())["classes"]
    assert [entry["name"] for entry in classes if entry["id"] != 255] == list(load_vocabulary("shapes").names)
    again = json.loads(expect(0, call("export", shapes.out, "--to", name, "--out", tmp_path / name, "--split", "0.75"))
                       .out.splitlines()[0])  # fmt: skip
    assert (again["samples"], again["written"]) == (IMAGES, 0)


def test_segments_and_maps_are_no_masks(shapes: Shapes, tmp_path: Path) -> None:
    refused = call("export", shapes.out / "cams", "--to", "png", "--out", tmp_path / "png")
    assert refused.is_clean_error()
    assert "holds class activation maps" in refused.err
