"""Benchmarks run in the tests' own process, which spares the seconds that importing torch takes."""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
Bench = Callable[..., tuple[dict, str]]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Bench:
    """Runs a script of scripts/bench with options, and gives its figures and what it prints.

    What it would do in processes of their own, to keep their memory apart, is done here, one after the other.
    """

    def run(name: str, *options: str) -> tuple[dict, str]:
        figures = tmp_path / "figures.json"
        monkeypatch.syspath_prepend(REPOSITORY / "scripts" / "bench")
        script = importlib.import_module(name)
        monkeypatch.setattr(script, "in_own_process", lambda function, *arguments: function(*arguments))
        monkeypatch.setattr(sys, "argv", [name, *options, "--threads", "1", "--json", str(figures)])
        script.main()
        return json.loads(figures.read_text()), capsys.readouterr().out

    return run
