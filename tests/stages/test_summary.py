import json

import pytest

from pseudolabel.stages.summary import Summary


def summary_of(statuses: dict[str, int], first: dict[str, list[str]] | None = None) -> Summary:
    return Summary("cams", "runs/x/cams", statuses.get("ok", 0), statuses, 1, 2.0, 5.0, first_failures=first or {})


def test_the_result_is_one_line_of_json() -> None:
    summary = summary_of({"ok": 8, "unlabelled": 1})
    assert summary.exit_status == 0
    (line,) = summary.lines()
    assert json.loads(line)["statuses"] == {"ok": 8, "unlabelled": 1}


def test_the_notes_count_samples() -> None:
    summary = summary_of({"ok": 8, "unlabelled": 1})
    assert summary.notes() == ["cams: all 8 samples done, 1 without labels left out -> runs/x/cams"]
    assert summary_of({"ok": 8}).notes() == ["cams: all 8 samples done -> runs/x/cams"]


def test_the_first_failures_are_shown_by_status() -> None:
    first = {"missing": ["b: no file", "c: no file"], "unlabelled": ["u: none"], "truncated": ["d\x1b[2J: ends early"]}
    statuses = {"ok": 8, "truncated": 1, "missing": 1200, "unlabelled": 4}
    summary = summary_of(statuses, first)
    assert summary.exit_status == 3
    assert summary.notes() == [
        "  1,200 missing, such as:",
        "    b: no file",
        "    c: no file",
        "  1 truncated:",
        r"    d\u001b[2J: ends early",
        "cams: 8 samples done, 1201 failed, 4 without labels left out; 'pseudolabel failures runs/x/cams' lists them. "
        "Fix them and add `retry_failed`.",
    ]


def test_a_step_that_follows_names_the_failures() -> None:
    summary = summary_of({"ok": 8, "missing": 1}, {"missing": ["b: no file"]})
    assert summary.notes(is_last=False) == ["cams: 8 samples done, 1 failed -> runs/x/cams"]


@pytest.mark.parametrize(
    ("statuses", "hint"),
    [
        (
            {"ok": 8, "unknown_class": 1},
            "lists them. Correct the labels (or give a `vocabulary` that has them, and another `out`) and add "
            "`retry_failed`.",
        ),
        (
            {"ok": 8, "unknown_class": 1, "missing": 1},
            "Correct the labels (or give a `vocabulary` that has them, and another `out`). Fix the others and add "
            "`retry_failed`.",
        ),
        ({"missing": 1}, "lists why. Fix them and add `retry_failed`; the folder is also free for other settings."),
        ({"unlabelled": 1}, "lists why. Give labels and run again; the folder is also free for other settings."),
    ],
)
def test_the_hint_is_of_the_failures(statuses: dict[str, int], hint: str) -> None:
    assert summary_of(statuses).notes()[-1].endswith(hint)


def test_without_finished_samples_the_reason_is_shown() -> None:
    summary = summary_of({"unlabelled": 3}, {"unlabelled": ["a: no labels", "b: no labels"]})
    assert summary.exit_status == 3
    *shown, last = summary.notes()
    assert shown == ["  3 unlabelled, such as:", "    a: no labels", "    b: no labels"]
    assert last.startswith("cams: none of 3 samples was done; 'pseudolabel failures runs/x/cams' lists why.")
