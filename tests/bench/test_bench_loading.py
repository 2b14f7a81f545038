"""The benchmark's figures on a few images; how large they are is not checked."""

import pytest

READERS = ["files", "ShardDataset"]


@pytest.mark.slow
def test_all_readers_are_measured(bench) -> None:
    report, shown = bench("loading", "--images", 6, "--batch", 2, "--workers", "0,1", "--repeat", 1)
    figures = report["figures"]
    assert report["images"] == 6
    assert [(one["pipeline"], one["workers"], one["reader"]) for one in figures] == [
        (pipeline, workers, reader) for pipeline in ("decode", "train") for workers in (0, 1) for reader in READERS
    ]
    for one in figures:
        assert min(one["images_per_second"], one["cpu_seconds"], one["first_batch"], one["peak_bytes"]) > 0
        assert (one["worker_bytes"] > 0) == (one["workers"] > 0)
        assert f"| {one['pipeline']} | {one['workers']} | {one['reader']} | {one['images_per_second']:.0f} |" in shown
    shares = [line.split("|")[5].strip() for line in shown.splitlines()[4:12]]
    assert shares[::2] == ["1.00"] * 4
    assert float(shares[1]) == pytest.approx(
        figures[1]["images_per_second"] / figures[0]["images_per_second"], abs=0.01
    )
    assert {"torch", "onedl-mmcv", "onedl-mmengine"} <= report["versions"].keys()
    assert report["machine"]["cores"] >= 1


@pytest.mark.slow
def test_real_images_are_read(bench, voc_sample) -> None:
    options = ("--voc", voc_sample, "--images", 4, "--batch", 2, "--workers", 0, "--repeat", 1)
    report, _ = bench("loading", *options)
    assert report["images"] == 4
    assert len(report["figures"]) == 4
