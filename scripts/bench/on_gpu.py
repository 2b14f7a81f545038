"""Every check that needs a GPU, in one command of less than ten minutes.

    python -m scripts.bench.on_gpu --out checks
    python -m scripts.bench.on_gpu --out checks --quick --device cpu --model shapes     # the same steps, on a laptop

It needs torch with CUDA, torchvision, transformers, accelerate, numpy, scipy, Pillow, matplotlib, packaging, PyYAML,
rich, fsspec, safetensors, huggingface-hub, regex, filelock and setuptools, which images for deep learning have, and
these, as wheels where there is no network: diffusers with importlib_metadata, zipp and requests (charset-normalizer,
idna, urllib3, certifi), jsonargparse with docstring-parser and typeshed-client, webdataset with braceexpand, and
pydensecrf2, which is built from source (`pip wheel pydensecrf2`; it needs a C++ compiler). With pytest and
pytest-timeout the tests of CUDA devices run as well. pseudolabel itself need not be installed. Nothing is downloaded:
the architecture of Stable Diffusion v1.5 gets random weights.

Each step is a process with a time limit of its own; a failure is reported, and the other steps still run. The folder
then holds the messages (.log), tables (.md) and figures (.json) of every step, and `report.md` with all tables.
"""

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

REPOSITORY = Path(__file__).resolve().parents[2]
PIPELINES = REPOSITORY / "pseudolabel" / "pipelines"
BUILD = "import sys; from pathlib import Path; from tests.plain.architectures import stable_diffusion_v15 as build; "
MARKER = ".on_gpu"
ENDING = 5.0  # seconds between asking a step to end and ending it


@dataclass(frozen=True)
class Step:
    """One process: its name, its arguments after `python`, and the seconds it may take."""

    name: str
    arguments: list[str]
    limit: float


@dataclass(frozen=True)
class Outcome:
    """How a step ended, with the tables that it printed, and its figures where it wrote any."""

    name: str
    status: str
    seconds: float
    tables: str = ""
    figures: dict | None = None


def main() -> None:
    args = parse_arguments()
    claim(args.out)
    out, began, outcomes = args.out.resolve(), time.monotonic(), []
    with TemporaryDirectory() as scratch, environment() as variables:
        for step in chosen(steps(args, Path(scratch) / "model"), args.steps):
            left = args.minutes * 60 - (time.monotonic() - began)
            outcomes.append(run(step, out, variables, left))
            print(f"{step.name}: {outcomes[-1].status}, {outcomes[-1].seconds:.0f} s", flush=True)
            (out / "report.md").write_text(report(outcomes))
    print(report(outcomes))
    if any(outcome.status != "done" for outcome in outcomes):
        raise SystemExit(1)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the logs, the figures and the report")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", default="sd15", help="sd15 (random weights), shapes, or a checkpoint's folder")
    parser.add_argument("--images", type=int, default=384, help="of one run of generate")
    parser.add_argument("--minutes", type=float, default=9.5, help="later steps are left out")
    parser.add_argument("--steps", nargs="+", metavar="NAME", help="only these, in this order, such as crf")
    parser.add_argument("--quick", action="store_true", help="a few images, one batch size, nothing compiled")
    return parser.parse_args()


def claim(out: Path) -> None:
    """Take a folder that is empty or that this script took before; the package may not be there to be asked."""
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()) and not (out / MARKER).exists():
        raise SystemExit(f"on_gpu: '{out}' holds files that this script did not write; choose another --out")
    (out / MARKER).touch()


@contextmanager
def environment() -> Iterator[dict[str, str]]:
    """Where the processes find the package while the context lasts: in this repository, installed or not.

    Installed, `configs/pipeline` is `pseudolabel.pipelines`; a link takes that place where it is not.
    """
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    found = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", "import pseudolabel.pipelines"]
    probe = subprocess.run(command, cwd=REPOSITORY, env=found, capture_output=True)
    if probe.returncode == 0:
        yield found
        return
    PIPELINES.symlink_to("../configs/pipeline")
    try:
        yield found
    finally:
        PIPELINES.unlink()


# The steps, the most important first.


def steps(args: argparse.Namespace, checkpoint: Path) -> list[Step]:
    model = str(checkpoint) if args.model == "sd15" else args.model
    device = ["--device", args.device]
    half = ["--dtype", "float32" if args.device == "cpu" else "bfloat16"]
    images = ["--images", "4" if args.quick else str(args.images)]
    found = [tests(), crf(args)] if args.device != "cpu" and importlib.util.find_spec("pytest") else [crf(args)]
    if args.model == "sd15":
        found.append(Step("model", ["-c", f"{BUILD} build(Path(sys.argv[1]))", model], 120))
    generate = ["--model", model, *device, *images, *half]
    for name, options in (QUICK if args.quick else VARIANTS).items():
        found.append(bench("generate", f"generate-{name}", [*generate, *options.split()], 240))
    found.append(bench("precision", "precision-shapes", ["--model", "shapes", *device, *few(args, 40)], 90))
    if args.model != "shapes":
        found.append(bench("precision", "precision-model", ["--model", model, *device, *few(args, 24)], 90))
    if not args.quick:
        found.append(bench("cams", "cams", ["--model", model, *device, *half, "--batches", "8,16,32,64"], 90))
    return found


def chosen(found: Sequence[Step], names: Sequence[str] | None) -> Sequence[Step]:
    """All steps, or the named ones in their order, after the one that makes the model where one of them reads it."""
    if names is None:
        return found
    by_name = {step.name: step for step in found}
    if unknown := [name for name in names if name not in by_name]:
        raise SystemExit(f"on_gpu: no step is called {', '.join(unknown)}; there are {', '.join(by_name)}")
    wanted = [by_name[name] for name in dict.fromkeys(names) if name != "model"]
    maker = [step for step in found if step.name == "model"]
    needed = "model" in names or any(maker and maker[0].arguments[-1] in step.arguments for step in wanted)
    return [*(maker if needed else []), *wanted]


QUICK = {"batch16": "--batch 16"}
VARIANTS = QUICK | {
    "compiled": "--batch 32 --compile --parts command steps",
    "batch32": "--batch 32 --parts command",
    "batch64": "--batch 64 --parts command",
    "float16": "--batch 32 --parts command --dtype float16",
}


def tests() -> Step:
    """Those that ask for a CUDA device."""
    files = sorted(
        path for path in (REPOSITORY / "tests").rglob("test_*.py") if "cuda.is_available()" in path.read_text()
    )
    names = [str(path.relative_to(REPOSITORY)) for path in files]
    return Step("tests", ["-m", "pytest", "-q", "-p", "no:cacheprovider", *names], 150)


def crf(args: argparse.Namespace) -> Step:
    small = ["--sizes", "64x64", "--labels", "2", "--images", "2"] if args.quick else []
    return bench("crf", "crf", ["--device", args.device, *small], 120)


def few(args: argparse.Namespace, images: int) -> list[str]:
    return ["--images", "4", "--dtypes", "bfloat16"] if args.quick else ["--images", str(images)]


def bench(benchmark: str, name: str, arguments: Sequence[str], limit: float) -> Step:
    return Step(name, ["-m", "scripts.bench", benchmark, *arguments, "--json", f"{name}.json"], limit)


# Running them.


def run(step: Step, out: Path, environment: dict[str, str], left: float) -> Outcome:
    """Run a step for its limit or what is left of the time; its children end with it."""
    if left <= 0:
        return Outcome(step.name, "no time left", 0.0)
    figures, tables = (out / f"{step.name}.{suffix}" for suffix in ("json", "md"))
    figures.unlink(missing_ok=True)  # of an earlier run
    arguments = [str(figures) if text == figures.name else text for text in step.arguments]
    began = time.monotonic()
    with tables.open("wb") as printed, (out / f"{step.name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=REPOSITORY,
            env=environment,
            stdout=printed,
            stderr=log,
            start_new_session=True,
        )
        try:
            code = process.wait(min(step.limit, left))
            status = "done" if code == 0 else f"failed with {code}"
        except subprocess.TimeoutExpired:
            end(process)
            status = "out of time"
        except BaseException:  # a person's Ctrl-C does not reach a step, which leads a session of its own
            end(process)
            raise
    found = json.loads(figures.read_text()) if figures.exists() else None
    return Outcome(step.name, status, time.monotonic() - began, tables.read_text().strip() if found else "", found)


def end(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(ENDING)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


# Results.


def report(outcomes: Sequence[Outcome]) -> str:
    """The machine, how each step ended, and all tables, as Markdown."""
    rows = [f"| {one.name} | {one.status} | {one.seconds:.0f} |" for one in outcomes]
    steps = "\n".join(["| step | | s |", "|---|---|---:|", *rows])
    tables = [f"## {one.name}\n\n{one.tables}" for one in outcomes if one.tables]
    return "\n\n".join(filter(None, [heading(outcomes), steps, *tables])) + "\n"


def heading(outcomes: Sequence[Outcome]) -> str:
    for figures in (one.figures for one in outcomes):
        if figures and "machine" in figures:
            software = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
            machine = figures["machine"]
            return f"{machine['device']}, {machine['cores']} cores, {software}, {figures['date']}"
    return ""


if __name__ == "__main__":
    main()
