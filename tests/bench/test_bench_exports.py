"""The benchmark's figures on a few samples; how large they are is not checked."""

from pseudolabel.exports.formats import FORMATS


def test_every_format_is_measured(bench) -> None:
    report, shown = bench("exports", "--samples", "3,5")
    figures = report["figures"]
    assert [(one["samples"], one["format"]) for one in figures] == [
        (count, name) for count in (3, 5) for name in FORMATS
    ]
    for one in figures:
        assert min(one["seconds"], one["cpu_seconds"], one["again_seconds"], one["written_bytes"], one["files"]) > 0
        assert f"| {one['format']} | {one['samples']} | {one['seconds']:.0f} |" in shown
