"""Rates of `generate` and agreement of precisions, on a few images; how large figures are is not checked."""

import math

import pytest

STEPS = {"reading", "resize", "vae", "text", "unet", "propagation", "writing"}


def test_the_command_its_steps_and_the_released_code(bench):
    report, shown = bench("generate", "--model", "shapes", "--images", 4, "--threads", 1)
    command, steps, released = report["command"], report["steps"], report["released"]
    assert steps["seconds_per_image"].keys() == STEPS
    assert all(seconds > 0 for seconds in steps["seconds_per_image"].values())
    for name in ("labelling", "refining", "all"):
        assert command[name]["first_shard_seconds"] > 0
    rate = report["images_per_second"]
    assert rate == command["all"]["images_per_second"]
    assert report["settings"]["images"] == 4
    classes = math.floor(1.555 * 4) / 4
    assert report["flop_per_image"] == pytest.approx(command["vae_flop"] + classes * 4 * command["unet_flop"])
    assert report["share_of_matmul"] == pytest.approx(rate * report["flop_per_image"] / command["matmul_flops"])
    assert report["train_aug_minutes"] == pytest.approx(10_582 / rate / 60)
    assert report["speedup"] == pytest.approx(rate * released["seconds_per_image"])
    assert released["seconds_per_image"] > released["seconds"]
    for title in ("reading", "VAE", "U-Net", "propagation", "DenseCRF alone", "the command", "the released way"):
        assert title in shown


def test_half_precision_gives_nearly_the_same_masks(bench):
    options = ("--model", "shapes", "--images", 2, "--dtypes", "bfloat16", "--timesteps", 50, "--threads", 1)
    report, shown = bench("precision", *options)
    agreement = report["agreement"]["bfloat16"]
    assert agreement["images"] == 2
    assert 0.99 <= agreement["worst_image"] <= agreement["equal_pixels"] <= 1
    assert 0 < agreement["mean_map_difference"] < agreement["largest_map_difference"] < 0.1
    assert "bfloat16" in shown
