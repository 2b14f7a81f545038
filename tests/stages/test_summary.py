import json

from pseudolabel.stages.summary import Summary


def summary_of(statuses: dict[str, int], first: dict[str, list[str]] | None = None) -> Summary:
    return Summary("cams", "runs/x/cams", statuses.get("ok", 0), statuses, 1, 2.0, 5.0, first_failures=first or {})


def test_the_last_line_counts_samples() -> None:
    summary = summary_of({"ok": 8, "unlabelled": 1})
    first, last = summary.lines()
    assert summary.exit_status == 0
    assert json.loads(first)["statuses"] == {"ok": 8, "unlabelled": 1}
    assert last == "cams: all 8 samples done, 1 without labels left out -> runs/x/cams"
    assert summary_of({"ok": 8}).lines()[1:] == ["cams: all 8 samples done -> runs/x/cams"]


def test_the_first_failures_are_shown_by_status() -> None:
    first = {"missing": ["b: no file", "c: no file"], "unlabelled": ["u: none"], "truncated": ["d\x1b[2J: ends early"]}
    statuses = {"ok": 8, "truncated": 1, "missing": 1200, "unlabelled": 4}
    summary = summary_of(statuses, first)
    assert summary.exit_status == 3
    assert summary.lines()[1:] == [
        "  1,200 missing, such as:",
        "    b: no file",
        "    c: no file",
        "  1 truncated:",
        r"    d\u001b[2J: ends early",
        "cams: 8 samples done, 1201 failed, 4 without labels left out; 'pseudolabel failures runs/x/cams' lists them. "
        "Fix them and add `retry_failed`.",
    ]


def test_without_finished_samples_the_reason_is_shown() -> None:
    summary = summary_of({"unlabelled": 3}, {"unlabelled": ["a: no labels", "b: no labels"]})
    assert summary.exit_status == 3
    _, *shown, last = summary.lines()
    assert shown == ["  3 unlabelled, such as:", "    a: no labels", "    b: no labels"]
    assert last.startswith("cams: none of 3 samples was done; 'pseudolabel failures runs/x/cams' lists why.")
