import json

import pytest

from pseudolabel.stages.summary import Summary, report


def summary_of(statuses: dict[str, int], first: dict[str, list[str]] | None = None) -> Summary:
    return Summary("cams", "runs/x/cams", statuses.get("ok", 0), statuses, 1, 2.0, 5.0, first_failures=first or {})


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_the_last_line_tells_how_many(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(summary_of({"ok": 8, "unlabelled": 1})) == 0
    first, last = lines_of(capsys)
    assert json.loads(first)["statuses"] == {"ok": 8, "unlabelled": 1}
    assert last == "cams: all 8 samples done, 1 without labels left out -> runs/x/cams"
    assert report(summary_of({"ok": 8})) == 0
    assert lines_of(capsys)[1:] == ["cams: all 8 samples done -> runs/x/cams"]
    assert report(None) == 0
    assert lines_of(capsys) == []


def test_the_first_failures_are_shown_by_status(capsys: pytest.CaptureFixture[str]) -> None:
    first = {"missing": ["b: no file", "c: no file"], "unlabelled": ["u: none"], "truncated": ["d\x1b[2J: ends early"]}
    statuses = {"ok": 8, "truncated": 1, "missing": 1200, "unlabelled": 4}
    assert report(summary_of(statuses, first)) == 3
    assert lines_of(capsys)[1:] == [
        "  1,200 missing, such as:",
        "    b: no file",
        "    c: no file",
        "  1 truncated:",
        r"    d\u001b[2J: ends early",
        "cams: 8 samples done, 1201 failed, 4 without labels left out; 'pseudolabel failures runs/x/cams' lists them. "
        "Fix them and add --retry-failed.",
    ]


def test_where_no_sample_was_done_the_reason_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(summary_of({"unlabelled": 3}, {"unlabelled": ["a: no labels", "b: no labels"]})) == 3
    _, *shown, last = lines_of(capsys)
    assert shown == ["  3 unlabelled, such as:", "    a: no labels", "    b: no labels"]
    assert last.startswith("cams: none of 3 samples was done; 'pseudolabel failures runs/x/cams' lists why.")
