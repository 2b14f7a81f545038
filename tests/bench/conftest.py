"""Benchmarks run in the tests' own process, which saves the seconds that importing torch takes."""

import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from scripts.bench import __main__ as runner
from scripts.bench import commands
from tests.e2e.commands import call, expect

Bench = Callable[..., tuple[dict, str]]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Bench:
    """Runs a benchmark with options, and returns its figures and what it prints.

    What it would do in processes of their own, to keep their memory apart, is done here, one after the other.
    """

    def run_here(arguments: list[str], environment: Mapping[str, str]) -> None:
        expect(0, call(*arguments))

    def run(name: str, *options: object) -> tuple[dict, str]:
        figures = tmp_path / "figures.json"
        module = importlib.import_module(f"scripts.bench.{name}")
        monkeypatch.setattr(module, "in_own_process", lambda function, *own: function(*own), raising=False)
        monkeypatch.setattr(commands, "run", run_here)
        threads = torch.get_num_threads()
        try:
            runner.main([name, *map(str, options), "--json", str(figures)])
        finally:
            torch.set_num_threads(threads)
        return json.loads(figures.read_text()), capfd.readouterr().out

    return run
