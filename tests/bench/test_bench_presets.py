"""The benchmark of presets, on a small model of Stable Diffusion's layout; how large the figures are is not checked."""

from scripts.bench.presets import WAYS
from tests.plain.architectures import tiny


def test_every_way_is_timed_beside_the_released_one(bench, tmp_path):
    report, shown = bench("presets", "--model", tiny(tmp_path / "model"), "--classes", "3", "--batch", "12")
    assert report["released"]["seconds"] > 0
    assert [row["forwards"] for row in report["ours"].values()] == [12, 4, 3, 1, 1]
    for row in report["ours"].values():
        assert row["seconds"] > 0
        assert row["peak_bytes"] >= 0
    for way in WAYS:
        assert way in shown
