"""Ctrl-C, which comes to all processes of a command at once."""

import os
import signal
from pathlib import Path

from tests.e2e.commands import call, expect, family, finished_units, shards, start, wait_for_all, wait_until
from tests.e2e.conftest import Shapes


def test_an_interrupted_run_prints_one_line_and_resumes(shapes: Shapes, endless_data: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    process = start("generate", *shapes.at(out, endless_data), log=log)
    wait_until(lambda: len(finished_units(out / "masks")) >= 1 or process.poll() is not None)
    workers = family(process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    wait_for_all(workers)
    lines = [
        line for line in log.read_text().splitlines() if line and "samples/s" not in line and "Loading" not in line
    ]
    assert lines == ["pseudolabel generate: interrupted; what is finished is kept; the same command resumes the work"]
    done = {kind: finished_units(out / kind) for kind in ("cams", "masks")}
    assert len(done["masks"]) < 8
    expect(0, call("generate", *shapes.at(out)))
    for kind in ("cams", "masks"):
        assert shards(out / kind) == shards(shapes.out / kind)
        assert done[kind].items() <= finished_units(out / kind).items()
