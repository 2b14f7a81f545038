"""Class-free masks adjust pseudo-masks through the real commands."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.e2e.commands import call, expect, samples
from tests.e2e.conftest import IMAGES, Shapes
from tests.plain.sepl import adjust


def write_truth_as_regions(shapes: Shapes, folder: Path) -> None:
    """Connected pieces of the ground truth, without classes."""
    folder.mkdir()
    for path in sorted((shapes.data / "SegmentationClass").glob("*.png")):
        truth = np.asarray(Image.open(path))
        pieces = np.zeros(truth.shape, np.uint8)
        for value in (value for value in np.unique(truth) if value not in (0, 255)):
            found = ndimage.label(truth == value)[0]
            pieces = np.where(found > 0, found + pieces.max(), pieces).astype(np.uint8)
        Image.fromarray(pieces).save(folder / path.name)


def png(members: dict[str, bytes]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(members["png"])))


def score(out: Path) -> dict[str, object]:
    scores: dict[str, object] = json.loads((out / "metrics.json").read_text())["masks"]
    return scores


@pytest.mark.parametrize("engine", ["pydensecrf", "torch"])
def test_masks_follow_regions_and_scores_say_so(shapes: Shapes, tmp_path: Path, engine: str) -> None:
    regions, plain, out = tmp_path / "regions", tmp_path / "plain", tmp_path / "out"
    write_truth_as_regions(shapes, regions)
    lacking = sorted(regions.iterdir())[0]
    kept = lacking.rename(tmp_path / lacking.name)
    for folder, options in ((plain, ()), (out, ("--refine.regions", regions))):
        shutil.copytree(shapes.out / "cams", folder / "cams")
        options = (*shapes.at(folder), "--crf.ignore_below", "0", "--crf.engine", engine, *options)
        expect(3 if folder == out else 0, call("refine", *options))
    before, after = samples(plain / "masks"), samples(out / "masks")
    assert before.keys() - after.keys() == {lacking.stem}
    summary = json.loads((out / "masks" / "summary.json").read_text())
    assert summary["statuses"] == {"ok": IMAGES - 1, "no_regions": 1}
    run = json.loads((out / "masks" / "run.json").read_text())
    assert (run["settings"]["regions"], run["about"]["regions"]) == ("mask_trained", str(regions))
    for key, members in after.items():
        best, pieces = png(before[key]), np.asarray(Image.open(regions / f"{key}.png"))
        masks = [(pieces == value).tolist() for value in np.unique(pieces) if value]
        classes = json.loads(members["json"])["classes"]
        assert png(members).tolist() == adjust(best.tolist(), best.tolist(), masks, classes)[0]
        assert json.loads(members["json"])["regions"] == "mask_trained"
    for folder in (plain, out):
        outcome = call("evaluate", "masks", *shapes.at(folder))
        assert ("mask-trained model's masks" in outcome.out + outcome.err) == (folder == out)
    assert (score(out)["regions"], score(plain).get("regions")) == ("mask_trained", None)
    kept.rename(lacking)
    expect(0, call("refine", *options, "--retry-failed"))
    assert samples(out / "masks").keys() == before.keys()
    outcome = expect(1, call("refine", *shapes.at(out), "--crf.ignore_below", "0"))
    assert "regions: mask_trained" in outcome.err


def test_methods_that_give_masks_take_no_regions(shapes: Shapes, tmp_path: Path) -> None:
    settings = (*shapes.at(tmp_path), "--method", "freesegdiff", "--refine.regions", tmp_path)
    outcome = expect(2, call("generate", *settings))
    assert outcome.is_clean_error()
    assert "gives no class activation maps" in outcome.err
