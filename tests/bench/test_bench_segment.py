"""The benchmark of all methods, on the small models."""


def test_every_method_is_timed_in_both_versions(bench):
    report, shown = bench("segment", "--model", "shapes", "--threads", 1, "--samples", 1, "--classes", 1)
    assert set(report["seconds"]) == {"diffsegmenter", "elbo", "diffseg", "freesegdiff"}
    for method, seconds in report["seconds"].items():
        assert set(seconds) == {"plain", "ours"}
        assert all(value > 0 for value in seconds.values())
        assert method in shown
