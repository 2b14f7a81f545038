import logging

import pytest

from pseudolabel.runtime.progress import show_progress
from pseudolabel.runtime.terminal import Terminal, with_options

OPTIONS = {"out": "--out", "source.max_pixels": "--source.max_pixels", "retry_failed": "--retry-failed"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("choose another `out`", "choose another --out"),
        ("raise `source.max_pixels` or add `retry_failed`.", "raise --source.max_pixels or add --retry-failed."),
        ("column `out_file` and `image`", "column `out_file` and `image`"),
        ("run `pseudolabel cams`; out, `out", "run `pseudolabel cams`; out, `out"),
    ],
)  # fmt: skip
def test_settings_in_backticks_become_options(text: str, expected: str) -> None:
    assert with_options(text, OPTIONS) == expected


def test_results_and_notes(capsys: pytest.CaptureFixture[str]) -> None:
    terminal, log = Terminal(), logging.getLogger("pseudolabel.stages.some")
    terminal.options = OPTIONS
    with terminal.shows(logging.INFO):
        terminal.print("see `out`")
        log.info("note: `out` is '%s'", "a\x1b[2J")
        log.debug("details")
    log.error("outside the context")
    printed = capsys.readouterr()
    assert printed.out == "see --out\n"
    assert printed.err == "note: --out is 'a\\u001b[2J'\n"


def test_quiet_leaves_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    terminal, log = Terminal(), logging.getLogger("pseudolabel.stages.some")
    with terminal.shows(logging.WARNING), show_progress("cams", 3) as progress:
        log.info("note")
        log.warning("warning")
        progress.update(3, 0)
    assert capsys.readouterr().err == "warning\n"
    with show_progress("cams", 3):
        pass
    assert "cams: 0/3 samples" in capsys.readouterr().err
