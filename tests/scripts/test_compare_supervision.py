"""What the demo and the comparison over seeds make of the runs' figures."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from pseudolabel.io.metrics import record_metrics

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_run(out: Path, val: float, full: float) -> None:
    """The files that a run leaves behind, with mIoUs in per cent as MMSegmentation writes them."""
    for name, miou in (("train", val), ("train-full-supervision", full)):
        (out / name).mkdir(parents=True)
        report = {"val": {"mIoU": miou, "images": 200}}
        (out / name / "metrics.json").write_text(json.dumps(report))
    labels = {"oracle": {"miou": 0.8}, "fixed": {"miou": 0.7}}
    record_metrics(str(out), "cams", labels)
    record_metrics(str(out), "masks", {"miou": 0.9, "images": 300})


def test_the_demos_scores(tmp_path):
    write_run(tmp_path, 85.5, 90.0)
    metrics = script("demo").write_metrics(tmp_path, 123.4)
    assert metrics == json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["val_miou"] == pytest.approx(0.855)
    assert metrics["val_miou_full_supervision"] == pytest.approx(0.9)
    assert metrics["percent_of_full_supervision"] == pytest.approx(95)
    assert (metrics["cam_miou"], metrics["mask_miou"], metrics["images"]) == (0.8, 0.9, 300)


def test_mean_and_standard_deviation_over_seeds(tmp_path):
    demo, compare = script("demo"), script("compare_supervision")
    for seed, val in ((1, 80.0), (2, 85.0), (3, 90.0)):
        write_run(tmp_path / str(seed), val, 90.0)
        demo.write_metrics(tmp_path / str(seed), 1.0)
    row = compare.summarise(tmp_path, [1, 2, 3])["val_miou"]
    assert row["values"] == pytest.approx([80, 85, 90])
    assert (row["mean"], row["standard_deviation"]) == pytest.approx((85, 5))
    assert compare.summarise(tmp_path, [1])["val_miou"]["standard_deviation"] is None
