"""The benchmarks of growing cost with tiny numbers; how large the figures are is not checked."""

import pytest

PARTS = ["python and imports", "listing", "model", "fingerprint", "ledger", "choice"]


@pytest.mark.slow
def test_processes_and_memory(bench) -> None:
    report, shown = bench("growth", "--samples", 2, "--ranks", 1, "--sizes", 144)
    assert [(row["ranks"], row["samples"]) for row in report["processes"]] == [(1, 2)]
    for row in report["processes"]:
        assert 0 < row["first_shard"] <= row["seconds"]
        assert row["images_per_second"] > row["samples"] / row["seconds"]  # starting is left out
        assert row["cpu_seconds"] > 1
    assert "2 images per process" in shown
    changed = [row["changed"] for row in report["memory"]]
    assert changed == ["samples", "samples", "classes", "classes", "size", "unit"]
    assert all(row["seconds"] > 0 for row in report["memory"])


@pytest.mark.slow
def test_a_restart(bench) -> None:
    report, shown = bench("restart", "--samples", 6, "--unit", 2)
    assert (report["samples"], report["units"]) == (6, 3)
    assert list(report["cams"]["parts"]) == PARTS
    for name in ("seconds", "cpu_seconds"):
        assert report["cams"][name] == pytest.approx(sum(row[name] for row in report["cams"]["parts"].values()))
    assert report["masks"]["seconds"] > 0
    assert "Restart at 6 samples in 3 units" in shown
