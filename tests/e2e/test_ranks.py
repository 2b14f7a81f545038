"""Several processes: the same bytes, whatever their number and whoever is killed."""

import os
import random
import signal
from pathlib import Path

import psutil
import pytest

from tests.e2e.commands import (
    assert_alike,
    call,
    expect,
    family,
    finished_units,
    run,
    shards,
    start,
    succeed,
    wait_for_all,
    wait_until,
)
from tests.e2e.conftest import Shapes
from tests.e2e.forks import run_fork, start_fork


def test_three_ranks_write_the_same_bytes(shapes: Shapes, tmp_path: Path) -> None:
    ranks = 3
    outcome = succeed("generate", *shapes.at(tmp_path), ranks=ranks)
    for kind in ("cams", "masks"):
        assert shards(tmp_path / kind) == shards(shapes.out / kind)
        assert len(shards(tmp_path / kind)) == 9  # eight shards and the index
        assert outcome.err.count(f"{kind}: all 16 samples done -> ") == 1  # printed by one rank only
    assert {path.name for path in (tmp_path / "cams").glob(".lock-*")} == {f".lock-{rank}" for rank in range(ranks)}


@pytest.mark.parametrize(("victim", "afterwards"), [("rank 1", 0), ("rank 0", 2), ("launcher", 0)])
def test_a_killed_run_resumes_with_another_world_size(
    shapes: Shapes, endless_data: Path, tmp_path: Path, victim: str, afterwards: int
) -> None:
    chance = random.Random(victim)
    folder = tmp_path / "out" / "cams"
    begin = start_fork if victim == "launcher" else start  # PyTorch's launcher hangs if a forked rank is killed
    launcher = begin("cams", *shapes.at(tmp_path / "out", endless_data), ranks=2, log=tmp_path / "log")
    wanted = chance.randint(1, 3)
    wait_until(lambda: len(finished_units(folder)) >= wanted or launcher.poll() is not None)
    processes = family(launcher)
    ranks = sorted(psutil.Process(launcher.pid).children(), key=lambda process: process.pid)
    pause_some_time(chance)
    doomed = psutil.Process(launcher.pid) if victim == "launcher" else ranks[int(victim[-1])]
    doomed.send_signal(signal.SIGKILL)
    assert launcher.wait(120) != 0
    wait_for_all(processes)  # also the orphans of a killed launcher
    done = finished_units(folder)
    assert wanted <= len(done) < 8
    log = (tmp_path / "log").read_text()
    if victim == "launcher":
        assert "the launcher is gone" in log
    if afterwards:
        expect(0, run_fork("cams", *shapes.at(tmp_path / "out"), ranks=afterwards))
    else:
        expect(0, call("cams", *shapes.at(tmp_path / "out")))
    assert shards(folder) == shards(shapes.out / "cams")
    assert done.items() <= finished_units(folder).items()  # nothing finished was touched
    assert not list(folder.glob(".unfinished-*.tar-*"))


def pause_some_time(chance: random.Random) -> None:
    """Up to a tenth of a second, so that the signal falls anywhere in the work on a unit."""
    psutil.wait_procs([psutil.Process(os.getpid())], timeout=chance.uniform(0, 0.1))


@pytest.mark.parametrize("moment", [0, 1])
def test_a_killed_generate_resumes(shapes: Shapes, endless_data: Path, tmp_path: Path, moment: int) -> None:
    chance = random.Random(moment)
    out = tmp_path / "out"
    process = start_fork("generate", *shapes.at(out, endless_data), log=tmp_path / "log")
    wanted = chance.randint(1, 4)
    wait_until(lambda: len(finished_units(out / "masks")) >= wanted or process.poll() is not None)
    workers = family(process)
    pause_some_time(chance)
    process.kill()
    process.wait(60)
    wait_for_all(workers)  # those of the CRF do not outlive it
    done = {kind: finished_units(out / kind) for kind in ("cams", "masks")}
    assert len(done["masks"]) < 8
    expect(0, call("generate", *shapes.at(out)))
    for kind in ("cams", "masks"):
        assert shards(out / kind) == shards(shapes.out / kind)
        assert done[kind].items() <= finished_units(out / kind).items()


def test_several_ranks_fail_and_retry(shapes: Shapes, own_data: Path, tmp_path: Path) -> None:
    """A rank that has failures to report, or nothing to retry, must not end the run of another that is at work."""
    out, image = tmp_path / "out", own_data / "JPEGImages" / "val_000003.jpg"  # of the second rank's first unit
    whole = image.read_bytes()
    image.write_bytes(whole[:1000])
    failed = run("generate", *shapes.at(out, own_data), ranks=2)
    assert failed.status != 0
    for kind in ("cams", "masks"):
        assert f"{kind}: 15 samples done, 1 failed" in failed.err
        expect(0, call("verify", out / kind))
    done = {kind: finished_units(out / kind) for kind in ("cams", "masks")}
    image.write_bytes(whole)
    expect(0, run_fork("generate", *shapes.at(out, own_data), "--retry-failed", ranks=2))
    for kind in ("cams", "masks"):
        assert_alike(out / kind, shapes.out / kind)
        expect(0, call("verify", out / kind))
        assert set(done[kind].items()) - set(finished_units(out / kind).items()) == {
            (f"{kind}-000001", done[kind][f"{kind}-000001"])
        }


def test_one_process_of_several_evaluates(shapes: Shapes, tmp_path: Path) -> None:
    arguments = ["evaluate", "masks", *shapes.at(tmp_path), "--predictions", shapes.out / "masks"]
    outcome = expect(0, run_fork(*arguments, ranks=2))
    assert outcome.out.count("Pseudo-masks on val, 16 images") == 1
    assert outcome.err.count("pseudolabel evaluate: this command uses one process; the other process ends") == 1
    expect(0, call(*arguments))
