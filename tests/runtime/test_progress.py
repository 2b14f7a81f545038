import io
import re
import sys

import pytest

from pseudolabel.runtime import progress
from pseudolabel.runtime.progress import show_progress

LINE = re.compile(r"cams: (\d+)/8 samples, (\d+\.\d\d) samples/s, ETA (\d\d+:\d\d:\d\d|--:--:--), failed (\d+)")


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


def lines(capsys: pytest.CaptureFixture[str]) -> list[tuple[str, ...]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    matches = [LINE.fullmatch(line) for line in captured.err.splitlines()]
    return [match.groups() for match in matches if match] if all(matches) else pytest.fail(captured.err)


def test_plain_lines_without_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    with show_progress("cams", 8) as progress:
        clock.now += 4
        progress.update(1, 0)
        clock.now += 8
        progress.update(3, 1)
        clock.now += 1
        progress.update(4, 1)
        clock.now += 3
        progress.update(8, 2)
    assert lines(capsys) == [
        ("0", "0.00", "--:--:--", "0"),
        ("3", "0.25", "00:00:20", "1"),  # one line in ten seconds
        ("8", "0.50", "00:00:00", "2"),
    ]


def test_earlier_samples_do_not_count(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    with show_progress("cams", 8) as progress:
        progress.update(4, 0)
        progress.restart()
        clock.now += 20
        progress.update(6, 0)
        assert progress.rate == pytest.approx(0.1)
    assert lines(capsys)[1] == ("6", "0.10", "00:00:20", "0")


def test_an_eta_of_more_than_a_day(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    with show_progress("cams", 8) as progress:
        clock.now += 40 * 3600
        progress.update(4, 0)
    assert lines(capsys)[1] == ("4", "0.00", "40:00:00", "0")


def test_other_ranks_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("cams", 8, show=False) as progress:
        progress.update(3, 1)
        progress.restart()
    assert (progress.done, progress.failures) == (3, 1)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with show_progress("cams", 8) as progress:
        progress.update(2, 0)
        progress.restart()
        progress.update(8, 3)
    last = screen.getvalue().rstrip().splitlines()[-2]
    assert "8/8" in last
    assert "failed 3" in last
    assert "samples/s" in last
