"""Every check that needs a GPU, in one command of less than ten minutes.

    python scripts/bench/on_gpu.py --out checks
    python scripts/bench/on_gpu.py --out checks --quick --device cpu --model shapes     # the same steps, on a laptop

It needs torch with CUDA, torchvision, transformers, accelerate, numpy, scipy, Pillow, matplotlib, packaging, PyYAML,
rich, fsspec, safetensors, huggingface-hub, regex, filelock and setuptools, which images for deep learning have, and
these, which can be carried as wheels: diffusers with importlib_metadata, zipp and requests (charset-normalizer, idna,
urllib3, certifi), jsonargparse with docstring-parser and typeshed-client, webdataset with braceexpand, and pydensecrf2,
which is built from source (`pip wheel pydensecrf2`; it needs a C++ compiler). With pytest and pytest-timeout the tests
of CUDA devices run as well. pseudolabel itself need not be installed. Nothing is downloaded: the architecture of Stable
Diffusion v1.5 gets random weights.

Each step is a process with a time limit of its own; what fails is reported, and the others still run. The folder then
holds a log and the figures (JSON) of every step, and `report.md` with the tables.
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
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

REPOSITORY = Path(__file__).resolve().parents[2]
PIPELINES = REPOSITORY / "pseudolabel" / "pipelines"
BENCH = Path("scripts/bench")
BUILD = "import sys; from pathlib import Path; from tests.plain.architectures import stable_diffusion_v15 as build; "
MARKER = ".on_gpu"
ENDING = 5.0  # seconds between asking a step to end and ending it


@dataclass(frozen=True)
class Step:
    """One process: its name, its arguments after `python`, and the seconds it may take."""

    name: str
    arguments: list[str]
    limit: float


@dataclass
class Outcome:
    """How a step ended, with its figures where it left any."""

    name: str
    status: str
    seconds: float
    figures: dict = field(default_factory=dict)


def main() -> None:
    args = parse_arguments()
    claim(args.out)
    out, began, outcomes = args.out.resolve(), time.monotonic(), []
    with TemporaryDirectory() as scratch, environment() as variables:
        for step in steps(args, Path(scratch) / "model"):
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
    parser.add_argument("--model", choices=["sd15", "shapes"], default="sd15")
    parser.add_argument("--images", type=int, default=384, help="of one run of generate")
    parser.add_argument("--minutes", type=float, default=9.5, help="steps that would begin later are left out")
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


# What is run: the most important first.


def steps(args: argparse.Namespace, checkpoint: Path) -> list[Step]:
    model = str(checkpoint) if args.model == "sd15" else args.model
    device = ["--device", args.device]
    half = ["--dtype", "float32" if args.device == "cpu" else "bfloat16"]
    images = ["--images", str(4 if args.quick else args.images)]
    found = [tests(), crf(args)] if args.device != "cpu" and importlib.util.find_spec("pytest") else [crf(args)]
    if args.model == "sd15":
        found.append(Step("model", ["-c", f"{BUILD} build(Path(sys.argv[1]))", model], 120))
    generate = ["--model", model, *device, *images]
    found += [bench("generate", f"generate-{name}", [*generate, *half, *more], 240) for name, more in VARIANTS.items()]
    if not args.quick:
        found += [bench("generate", f"generate-{name}", [*generate, *half, *more], 150) for name, more in MORE.items()]
        found.append(bench("generate", "generate-fp16", [*generate, "--dtype", "float16", *WHOLE, "--batch", "32"], 90))
    found.append(bench("precision", "precision-shapes", ["--model", "shapes", *device, *few(args, 40)], 90))
    if args.model == "sd15":
        found.append(bench("precision", "precision-sd15", ["--model", model, *device, *few(args, 24)], 90))
    if not args.quick:
        found.append(bench("cams", "cams", ["--model", model, *device, *half, "--batches", "8,16,32,64"], 90))
    return found


WHOLE = ["--parts", "whole"]
VARIANTS = {"batch16": ["--batch", "16"]}
MORE = {
    "compiled": ["--batch", "32", "--compile", "--parts", "whole", "stations"],
    "batch32": ["--batch", "32", *WHOLE],
    "batch64": ["--batch", "64", *WHOLE],
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


def bench(script: str, name: str, arguments: Sequence[str], limit: float) -> Step:
    return Step(name, [str(BENCH / f"{script}.py"), *arguments, "--json", f"{name}.json"], limit)


# How it is run.


def run(step: Step, out: Path, environment: dict[str, str], left: float) -> Outcome:
    """Run a step for its limit or what is left of the time; its children end with it."""
    if left <= 0:
        return Outcome(step.name, "no time left", 0.0)
    figures = out / f"{step.name}.json"
    figures.unlink(missing_ok=True)  # of an earlier run
    arguments = [str(figures) if text == figures.name else text for text in step.arguments]
    began = time.monotonic()
    with (out / f"{step.name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=REPOSITORY,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
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
    return Outcome(
        step.name, status, time.monotonic() - began, json.loads(figures.read_text()) if figures.exists() else {}
    )


def end(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(ENDING)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


# What came out.


def report(outcomes: Sequence[Outcome]) -> str:
    """All figures as Markdown."""
    parts = [
        heading(outcomes),
        markdown(["step", "", "s"], [[one.name, one.status, f"{one.seconds:.0f}"] for one in outcomes]),
        generate_tables([one for one in outcomes if one.name.startswith("generate") and one.figures]),
        precision_table([one for one in outcomes if one.name.startswith("precision") and one.figures]),
        *(cams_table(one.figures) for one in outcomes if one.name == "cams" and one.figures),
        *(crf_tables(one.figures) for one in outcomes if one.name == "crf" and one.figures),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def heading(outcomes: Sequence[Outcome]) -> str:
    for outcome in outcomes:
        if "machine" in outcome.figures:
            machine, versions = outcome.figures["machine"], outcome.figures["versions"]
            software = ", ".join(f"{name} {version}" for name, version in versions.items())
            return f"{machine['device']}, {machine['cores']} cores, {software}, {outcome.figures['date']}"
    return ""


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all columns but the first are flush right."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def generate_tables(outcomes: Sequence[Outcome]) -> str:
    whole = [
        [
            outcome.name.removeprefix("generate-"),
            outcome.figures["settings"]["dtype"],
            f"{outcome.figures['images_per_second']:.3g}",
            f"{outcome.figures['whole']['labelling']['images_per_second']:.3g}",
            f"{outcome.figures['whole']['refining']['images_per_second']:.3g}",
            f"{outcome.figures['whole']['matmul_flops'] / 1e12:.3g}",
            f"{100 * outcome.figures['share_of_matmul']:.1f}",
            f"{outcome.figures['train_aug_minutes']:.3g}",
            f"{outcome.figures['speedup']:.3g}" if "speedup" in outcome.figures else "",
        ]
        for outcome in outcomes
        if "whole" in outcome.figures
    ]
    heads = ["generate", "dtype", "images/s", "labelling", "DenseCRF alone", "matmul, TFLOP/s", "share %"]
    tables = [markdown([*heads, "10,582 images, min", "x released"], whole)] if whole else []
    for outcome in outcomes:
        if "stations" in outcome.figures:
            seconds = outcome.figures["stations"]["seconds_per_image"]
            rows = [[station, f"{1000 * value:.3g}", f"{1 / value:.4g}"] for station, value in seconds.items()]
            tables.append(markdown([outcome.name, "ms per image", "images/s"], rows))
    return "\n\n".join(tables)


def precision_table(outcomes: Sequence[Outcome]) -> str:
    rows = [
        [
            f"{outcome.name.removeprefix('precision-')}, {dtype}",
            str(row["images"]),
            f"{100 * row['equal_pixels']:.4f}",
            f"{100 * row['worst_image']:.3f}",
            f"{row['mean_map_difference']:.1e}",
        ]
        for outcome in outcomes
        for dtype, row in outcome.figures["agreement"].items()
    ]
    heads = ["beside float32", "images", "equal pixels %", "worst image %", "mean map difference"]
    return markdown(heads, rows) if rows else ""


def cams_table(figures: dict) -> str:
    rows = [
        [str(row["batch"]), f"{row['images_per_second']:.3g}", f"{row['flops'] / 1e12:.3g}"]
        for row in figures["batches"]
        if not row.get("out_of_memory")
    ]
    return markdown(["score maps alone, batch", "images/s", "TFLOP/s"], rows)


def crf_tables(figures: dict) -> str:
    """Speeds and agreement as they stand in the file."""
    tables = [dicts_table(figures[name]) for name in ("speed", "agreement") if figures[name]]
    return "\n\n".join(tables)


def dicts_table(rows: Sequence[dict]) -> str:
    cells = [[f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    return markdown(list(rows[0]), cells)


if __name__ == "__main__":
    main()
