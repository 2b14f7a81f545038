"""Thousands of Shapes images through `generate`, killed and started again: does it hold, and what does it cost?

    python -m scripts.bench scale --json scale.json                   # 20,000 images, about an hour on two cores
    python -m scripts.bench scale --work runs/look --images 400 --unit 8                       # a small run

Draws the images, starts the real command, kills all its processes when a third and two thirds of the mask shards are
there, starts it again with another number of processes, verifies every shard and sums up the ledgers. On the CPU, one
thread per process, whatever else the machine has. A benchmark that was stopped resumes with the same command.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

from pseudolabel.errors import OutputError
from pseudolabel.io.folder import Folder
from pseudolabel.io.own_folder import claim_folder
from pseudolabel.shapes.dataset import MARKER
from pseudolabel.shards.ledger import INDEX, Ledger, LedgerEntry, entry_name

from .commands import ONE_THREAD, launch
from .report import table

COMMON = ()
KINDS = ("cams", "masks")
RANKS = (2, 1)  # of the starts, in turn
POLL_SECONDS = 0.2
LINE_EVERY_SECONDS = 30.0


@dataclass(frozen=True)
class Start:
    """One start of the command, to its end or until it was killed.

    Attributes:
        ranks: number of processes that label.
        ended: time of day at the end, in seconds since 1970.
        seconds: from the start to the end.
        killed: whether it was.
        shards: how many there are by then, by kind.
        samples: whose masks this start has finished.
        first_shard: seconds until its first shard, by kind.
        ready: seconds until work on its first shard began: imports, listing, the model, the ledger.
        lost: seconds of work on units that the kill left undone, over all ranks and kinds; for masks with waiting.
        largest_process: largest resident set of a process seen, in bytes.
    """

    ranks: int
    ended: float
    seconds: float
    killed: bool
    shards: dict[str, int]
    samples: int
    first_shard: dict[str, float]
    ready: float
    lost: float
    largest_process: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--work", type=Path, default=Path("runs/scale"), help="folder of the data and the results")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--unit", type=int, default=64, help="samples per shard")
    parser.add_argument("--kills", type=int, default=2, help="at equal parts of the mask shards")
    parser.add_argument("--seed", type=int, default=20231, help="of the images")


def measure(args: argparse.Namespace) -> dict:
    try:
        claim_folder(args.work, "scale.py", "--work")
    except OutputError as error:
        sys.exit(f"scale: {error}")
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit("scale: stopped; the same command resumes"))
    try:
        drawing = draw_images(args.work / "data", args.images, args.seed)
        starts = run_to_the_end(args)
    finally:
        signal.signal(signal.SIGTERM, before)
    out = args.work / "out"
    return {
        "drawing_seconds": drawing,
        "starts": [asdict(start) for start in starts],
        "done_twice": {kind: done_twice(out, kind, starts) for kind in KINDS},
        "verify_seconds": {kind: verify(out / kind) for kind in KINDS},
        "ledgers": {kind: sum_up(out, kind) for kind in KINDS},
    }


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


# The data.


def draw_images(data: Path, images: int, seed: int) -> float | None:
    """Seconds that drawing took; None where the images are there already."""
    marker, names = data / MARKER, data / "ImageSets" / "Segmentation" / "trainval.txt"  # written first, and last
    plan = {"train": images, "val": 0, "seed": seed}
    if names.exists() and plan.items() <= json.loads(marker.read_text()).items():
        say(f"{images} images are there already: {data}")
        return None
    began = time.monotonic()
    options = [f"--{name}={value}" for name, value in {"out": data, **plan}.items()]
    subprocess.run([sys.executable, "-m", "pseudolabel", "shapes", *options], check=True)
    return time.monotonic() - began


# The run.


def run_to_the_end(args: argparse.Namespace) -> list[Start]:
    """Start, kill and start again until the masks are complete; earlier calls' starts are in the folder."""
    notes = args.work / "starts.json"
    starts = [Start(**fields) for fields in json.loads(notes.read_text())] if notes.exists() else []
    shards = -(-args.images // args.unit)
    targets = [shards * part // (args.kills + 1) for part in range(1, args.kills + 1)]
    while not (args.work / "out" / "masks" / INDEX).exists():
        starts.append(start_once(args, RANKS[len(starts) % len(RANKS)], shards, targets))
        notes.write_text(json.dumps([asdict(start) for start in starts], indent=2) + "\n")
    return starts


def start_once(args: argparse.Namespace, ranks: int, shards: int, targets: list[int]) -> Start:
    """Run the command until it ends, or until the next of the targets, numbers of mask shards, is reached."""
    out, log = args.work / "out", args.work / "log.txt"
    before = {kind: finished(out, kind) for kind in KINDS}
    target = next((target for target in targets if target > len(before["masks"])), shards)
    options = ["--config", "shapes", "--source.path", str(args.work / "data"), "--source.split", "train"]
    options += ["--work.unit", str(args.unit), "--out", str(out)]
    line = [*shlex.split(launch(ranks))]
    line += ["-m", "pseudolabel", "generate", *options]
    say(f"$ {shlex.join(['python', *line])}")
    began, clock = time.time(), time.monotonic()
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, *line],
            env={**os.environ, **ONE_THREAD},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    try:
        largest = watch(process, out, target if target < shards else None, shards)
        killed = process.poll() is None
        seconds, ended = time.monotonic() - clock, time.time()
    finally:
        kill(process)
    if not killed and process.returncode:
        sys.exit(f"scale: the command ended with status {process.returncode}; its messages are in {log}")
    after = {kind: finished(out, kind) for kind in KINDS}
    new = {kind: {unit: after[kind][unit] for unit in after[kind].keys() - before[kind].keys()} for kind in KINDS}
    first = {kind: min(done.values(), key=lambda shard: shard.written) for kind, done in new.items() if done}
    say(f"{'killed' if killed else 'ended'} after {seconds:.0f} s with {len(after['masks'])}/{shards} mask shards")
    return Start(
        ranks=ranks,
        ended=ended,
        seconds=seconds,
        killed=killed,
        shards={kind: len(after[kind]) for kind in KINDS},
        samples=sum(shard.entry.samples for shard in new["masks"].values()),
        first_shard={kind: shard.written - began for kind, shard in first.items()},
        ready=min((shard.written - shard.entry.seconds - began for shard in first.values()), default=seconds),
        lost=sum(unfinished(new[kind], ranks, began, ended) for kind in KINDS) if killed else 0.0,
        largest_process=largest,
    )


def watch(process: subprocess.Popen[bytes], out: Path, target: int | None, shards: int) -> int:
    """Wait until the command ends or the target is reached, printing the progress; the largest process's bytes."""
    largest, said = 0, time.monotonic()
    while process.poll() is None:
        done = {kind: len(Ledger(Folder(str(out / kind)), kind).units()) for kind in KINDS}
        if target is not None and done["masks"] >= target:
            break
        largest = max(largest, *(resident(member) for member in family(process)))
        if time.monotonic() - said >= LINE_EVERY_SECONDS:
            said = time.monotonic()
            say(", ".join(f"{kind} {done[kind]}/{shards} shards" for kind in KINDS))
        time.sleep(POLL_SECONDS)
    return largest


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The command's process and all that it has started."""
    try:
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def resident(process: psutil.Process) -> int:
    with suppress(psutil.NoSuchProcess):
        return process.memory_info().rss
    return 0


def kill(process: subprocess.Popen[bytes]) -> None:
    """End all processes at once, as a power cut would; the launcher's ranks are in process groups of their own."""
    members = family(process)
    for member in members:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
    psutil.wait_procs(members)


# What the ledgers say.


@dataclass(frozen=True)
class Shard:
    """A finished shard: its ledger entry, and when that was written."""

    entry: LedgerEntry
    written: float


def finished(out: Path, kind: str) -> dict[int, Shard]:
    """The finished shards by the number of their unit."""
    ledger, shards = Ledger(Folder(str(out / kind)), kind), {}
    for number in ledger.units():
        entry = ledger.entry(number)
        if entry is not None:
            shards[number] = Shard(entry, (out / kind / entry_name(kind, number)).stat().st_mtime)
    return shards


def unfinished(new: dict[int, Shard], ranks: int, began: float, ended: float) -> float:
    """Seconds since the last shard of each rank."""
    last = [max((new[unit].written for unit in new if unit % ranks == rank), default=began) for rank in range(ranks)]
    return sum(ended - written for written in last)


def done_twice(out: Path, kind: str, starts: list[Start]) -> int:
    """Shards that were finished when a start was killed and have been written again after it."""
    written = [shard.written for shard in finished(out, kind).values()]
    kept = ((start.shards[kind], sum(time <= start.ended for time in written)) for start in starts if start.killed)
    return sum(before - now for before, now in kept)


def verify(folder: Path) -> float:
    """Seconds that `verify` took; ends the script if it finds a problem."""
    say(f"verifying {folder}")
    began = time.monotonic()
    if subprocess.run(
        [sys.executable, "-m", "pseudolabel", "verify", str(folder)], stdin=subprocess.DEVNULL
    ).returncode:
        sys.exit(f"scale: '{folder}' is not valid")
    return time.monotonic() - began


def sum_up(out: Path, kind: str) -> dict:
    """Units, samples, seconds and bytes of all shards of one kind."""
    entries = [shard.entry for shard in finished(out, kind).values()]
    seconds = [entry.seconds for entry in entries]
    samples, size = sum(entry.samples for entry in entries), sum(entry.size for entry in entries)
    notes = sum((out / kind / entry_name(kind, entry.unit)).stat().st_size for entry in entries)
    return {
        "shards": len(entries),
        "samples": samples,
        "statuses": dict(sum((Counter(entry.statuses) for entry in entries), Counter())),
        "unit_seconds": {
            "median": float(np.median(seconds)),
            "p95": float(np.percentile(seconds, 95)),
            "max": max(seconds),
            "sum": sum(seconds),
        },
        "shard_bytes": {"mean": size / len(entries), "max": max(entry.size for entry in entries)},
        "entry_bytes": notes / len(entries),
        "sample_bytes": size / samples,
        "member_bytes": member_bytes([out / kind / entry.shard for entry in entries], samples),
    }


def member_bytes(shards: list[Path], samples: int) -> dict[str, float]:
    """Mean bytes per sample by extension; `tar` is what the headers and the filling of blocks take."""
    sizes: Counter[str] = Counter()
    for shard in shards:
        with tarfile.open(shard) as tar:
            members = tar.getmembers()
        for member in members:
            sizes[member.name.rpartition("/")[2].partition(".")[2]] += member.size
        sizes["tar"] += shard.stat().st_size - sum(member.size for member in members)
    return {name: size / samples for name, size in sizes.items()}


def tables(report: dict) -> list[str]:
    starts = []
    for start in report["starts"]:
        first = [f"{start['first_shard'][kind]:.1f}" if kind in start["first_shard"] else "" for kind in KINDS]
        rate = start["samples"] / start["seconds"]
        starts.append(
            [
                *(start["ranks"], "killed" if start["killed"] else "complete", f"{start['seconds']:.0f}"),
                *(start["shards"]["masks"], f"{rate:.2f}", f"{start['ready']:.1f}", *first),
                *(f"{start['lost']:.1f}", f"{start['largest_process'] / 2**20:.0f}"),
            ]
        )
    heads = ["ranks", "end", "s", "mask shards", "samples/s", "ready, s", "first CAMs, s", "first masks, s", "lost, s"]
    figures = [flat(report["ledgers"][kind]) for kind in KINDS]
    ledgers = [
        [name, *(f"{figure.get(name, 0):,.2f}".removesuffix(".00") for figure in figures)]
        for name in dict.fromkeys(name for figure in figures for name in figure)
    ]
    ledgers.append(["verify, s", *(f"{report['verify_seconds'][kind]:.1f}" for kind in KINDS)])
    title = f"Starts; shards done twice: {sum(report['done_twice'].values())}"
    return [table(title, [*heads, "largest process, MiB"], starts), table("Ledgers", ["", *KINDS], ledgers)]


def flat(ledger: dict) -> dict[str, float]:
    """`unit_seconds.median: 1.5` and the like."""
    found: dict[str, float] = {}
    for name, value in ledger.items():
        found |= (
            {f"{name}.{part}": number for part, number in value.items()} if isinstance(value, dict) else {name: value}
        )
    return found
