"""No rank outlives its launcher, whenever the launcher is killed."""

import random
import time
from pathlib import Path

import psutil

from tests.e2e.commands import LAUNCHER, call, expect, shards, wait_for_all, wait_until
from tests.e2e.conftest import Shapes
from tests.e2e.forks import start_fork

TIMES = 3
MESSAGE = "the launcher is gone; stopping. Every finished shard is safe"


def kill(launcher: psutil.Process) -> list[psutil.Process]:
    """Kill a launcher; its ranks and their workers, as many as there were."""
    try:
        launcher.suspend()  # so that it starts no more of them meanwhile
        ranks = launcher.children(recursive=True)
        launcher.kill()
    except psutil.NoSuchProcess:  # it has ended by itself, after its ranks
        return []
    return ranks


def start_ranks(how: str, arguments: list[str], log: Path) -> psutil.Process:
    """A launcher that has just started its two ranks."""
    launcher = psutil.Process(start_fork(*arguments, ranks=2, how=how, log=log).pid)
    wait_until(lambda: len(launcher.children()) == 2, 60)
    return launcher


def test_at_start_up(shapes: Shapes, tmp_path: Path) -> None:
    """While the ranks of `accelerate launch` are importing and joining."""
    chance = random.Random(0)
    arguments = [*LAUNCHER, "--main_process_port", "0", "-m", "pseudolabel", "cams", *shapes.at(tmp_path / "out")]
    for number in range(TIMES):
        log = tmp_path / f"log-{number}"
        launcher = start_ranks("programs", arguments, log)
        time.sleep(chance.uniform(0, 2.5))
        ranks = kill(launcher)
        wait_for_all(ranks)
        assert len(ranks) == 2
        assert MESSAGE in log.read_text()  # of one at least: the other may have ended as its peer was gone


def test_while_loading(shapes: Shapes, endless_data: Path, tmp_path: Path) -> None:
    """And while working on units that never end by themselves."""
    chance, out = random.Random(1), tmp_path / "out"
    folder = shapes.begun(out, units=6)
    for number in range(TIMES):
        log = tmp_path / f"log-{number}"
        launcher = start_ranks("forks", ["cams", *shapes.at(out, endless_data)], log)
        time.sleep(chance.uniform(0, 1.5))
        ranks = kill(launcher)
        wait_for_all(ranks)
        assert len(ranks) == 2
        assert MESSAGE in log.read_text()  # of one at least: the other may have ended as its peer was gone
    expect(0, call("cams", *shapes.at(out)))
    assert shards(folder) == shards(shapes.out / "cams")


def test_at_the_end(shapes: Shapes, tmp_path: Path) -> None:
    chance, out = random.Random(2), tmp_path / "out"
    folder = shapes.begun(out, units=7)
    last = folder / "cams-000007.json"
    for number in range(TIMES):
        launcher = start_ranks("forks", ["cams", *shapes.at(out)], tmp_path / f"log-{number}")
        wait_until(last.exists, 60)
        time.sleep(chance.uniform(0, 0.1))
        wait_for_all(kill(launcher))
        for path in (last, folder / "index.json"):
            path.unlink(missing_ok=True)
    expect(0, call("cams", *shapes.at(out)))
    assert shards(folder) == shards(shapes.out / "cams")
