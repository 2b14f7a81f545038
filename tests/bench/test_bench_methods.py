"""The benchmark's figures on small maps; how large they are is not checked."""

import pytest

PARTS = {"aggregation", "merging", "suppression"}


def test_all_versions_of_diffseg_give_the_same_masks(bench):
    report, shown = bench("methods", "--side", "16", "--anchors", "6", "--output", "64", "--threads", "1")
    assert report["different_pixels"] == {"released": 0, "loop": 0}
    assert report["segments"] > 2
    for way in ("released", "loop"):
        assert report["speedup"][way] == pytest.approx(report[way]["seconds"] / report["ours"]["seconds"])
    for way in ("ours", "released", "loop"):
        assert report[way]["parts"].keys() == PARTS
        assert 0.5 * report[way]["seconds"] < sum(report[way]["parts"].values()) <= report[way]["seconds"]
        assert report[way]["peak_bytes"] >= 0
    assert report["settings"]["side"] == 16
    for title in ("aggregation", "merging", "suppression", "released way", "plain loop", "peak"):
        assert title in shown
