"""The benchmark's figures, with the shipped model; how large they are is not checked."""

import pytest

PARTS = {"vae", "text", "unet", "propagation"}


def test_both_versions_give_the_same_maps(bench):
    report, shown = bench("cams", "--model", "shapes", "--timesteps", "50,150")
    assert report["max_abs_diff"] <= 1e-4
    low, high = report["map_range"]
    assert high - low > 1e-3
    old, new = report["released"], report["ours"]
    assert report["speedup"] == pytest.approx(old["seconds"] / new["seconds"])
    assert report["memory_ratio"] == pytest.approx(old["peak_bytes"] / new["peak_bytes"])
    for way in (old, new):
        assert way["parts"].keys() == PARTS
        assert 0.5 * way["seconds"] < sum(way["parts"].values()) <= way["seconds"]
        assert way["peak_bytes"] > 1e6
    assert report["settings"]["timesteps"] == [50, 150]
    assert report["machine"]["cores"] >= 1
    assert {"python", "torch", "diffusers", "transformers"} <= report["versions"].keys()
    for title in ("VAE", "text", "U-Net", "propagation", "peak above the weights"):
        assert title in shown


def test_throughput_at_several_batch_sizes(bench):
    options = ["--model", "shapes", "--timesteps", "50,150", "--batches", "2,6", "--classes", "2"]
    report, shown = bench("cams", *options)
    assert [row["batch"] for row in report["batches"]] == [2, 6]
    assert [row["images"] for row in report["batches"]] == [2, 6]  # three U-Net batches of 1 and of 3 pairs, or more
    for row in report["batches"]:
        assert row["share"].keys() == PARTS
        assert 0.5 < sum(row["share"].values()) <= 1
        work = report["vae_flop"] + 2 * 2 * report["unet_flop"]
        assert row["flops"] == pytest.approx(row["images_per_second"] * work)
    assert report["matmul_flops"] > 1e9
    assert "images/s" in shown
