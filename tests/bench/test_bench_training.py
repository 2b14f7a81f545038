"""The training benchmark runs and reports what it measured; how fast that is is not checked."""

import pytest


@pytest.mark.slow
def test_iterations_waiting_and_memory_are_measured(bench) -> None:
    options = ("--batch", 1, "--crop", 33, "--iterations", 2, "--images", 4, "--workers", 0)
    report, shown = bench("training", *options)
    first = report["figures"][0]
    assert first["precision"] == "float32"
    assert first["iterations_per_second"] > 0
    assert 0 < first["data_share"] < 1
    assert first["peak_bytes"] > 4 * 42e6  # the parameters of ResNet-101 alone
    assert f"| float32 | {first['iterations_per_second']:.2f} | 1.00 |" in shown
    assert {"torch", "onedl-mmcv", "onedl-mmengine"} <= report["versions"].keys()
