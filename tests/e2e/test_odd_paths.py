"""Folders and files with the signs of URLs, patterns, shells and markup in their names: every command works there."""

import json
from pathlib import Path

import numpy as np
import pytest

from pseudolabel.shapes.world import draw_scene
from tests.e2e.commands import call, expect, failures, samples

ODD = " a::[v1]{x,y}*?#%20\n'\"é"


@pytest.mark.parametrize("root", [ODD, "caf\udce9"])
def test_every_command_works_in_a_folder_with_unusual_characters(tmp_path: Path, root: str) -> None:
    place = tmp_path / root
    for name in ("star/[a] b::c", "star/caf\udce9", "circle/new\nline"):
        target = place / "in" / f"{name}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        draw_scene(np.random.default_rng(1)).image.save(target)
    (place / "in/star/notes.txt").touch()
    data = ["--config", "shapes", "--source.kind", "folder", "--source.path", place / "in", "--vocabulary="]
    captions, out = ["--captions.source", place / "captions"], ["--out", place / "out"]

    captioned = expect(3, call("caption", *data, *captions))
    assert captioned.err.count("1 file left out: 1 .txt") == 1
    labelled = expect(3, call("cams", *data, *captions, *out))
    assert "vocabulary: shapes, since it knows all 2 class folders" in labelled.err
    assert "1 file left out: 1 .txt" in labelled.err
    assert set(samples(place / "out/cams")) == {"star/[a] b::c", "circle/new\nline"}
    assert failures(place / "out/cams") == {"star/caf\\xe9": "undecodable_name"}
    expect(0, call("verify", place / "out/cams"))
    expect(0, call("sheet", *data, *out))
    expect(3, call("filter", *data, *out, "--filter.nouns", "none"))
    (lines,) = (place / "out/filter").glob("*.jsonl")
    assert {json.loads(line)["key"] for line in lines.open()} == {"star/[a] b::c", "circle/new\nline"}
    again = ["--out", place / "again", "--source.labels", place / "out/filter"]
    expect(3, call("cams", *data, *again))
