"""`pseudolabel doctor`: what is installed, what is missing, and the command that fixes it.

Every check returns findings and catches only what it looks for; nothing here needs more than rich and packaging.
"""

import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote

from packaging.requirements import Requirement
from packaging.version import Version
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pseudolabel.io.shipped import NAME, resolve
from pseudolabel.runtime.cores import usable_cores

PACKAGE = "pseudolabel"
PIP = f"{shlex.quote(sys.executable)} -m pip install"
GIB = 2**30
EXTRA = re.compile(r"""extra == ["']([^"']+)["']""")
CHECKPOINT_GIB = 5  # what Stable Diffusion 1.5 takes in the cache


class State(StrEnum):
    """How a finding bears on the exit status: only `MISSING` makes it 1."""

    OK = "ok"
    NOTE = "note"
    MISSING = "missing"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: what was looked at.
        found: what there is.
        state: whether that is enough.
        hint: a command, or for what no command fixes a sentence; empty where nothing is to be done.
    """

    name: str
    found: str
    state: State = State.OK
    hint: str = ""


def doctor(requirements: list[str] | None = None) -> int:
    """Print versions, devices and what is missing, with the command that fixes each.

    Args:
        requirements: requirement strings such as `torch>=2.6`, as in a package's metadata; by default those of the
            installed package. Those under an `extra == "..."` marker are optional.

    Returns:
        0, or 1 where something required is missing.
    """
    if requirements is None:
        requirements = installed_requirements()
    sections = {
        "System": list(check_system()),
        "Packages": list(check_packages(requirements)),
        "Devices": list(check_devices()),
        "Parts": [
            check_crf(),
            check_model(Path(resolve(NAME, "diffusion"))),
            check_text_models(Path(resolve(NAME, "clip")).parent),
        ],
        "Storage": list(check_storage()),
    }
    console = Console()
    for title, findings in sections.items():
        console.print(_table(title, findings))
    findings = [finding for section in sections.values() for finding in section]
    for state, heading in ((State.NOTE, "Worth knowing"), (State.MISSING, "Missing")):
        todo = [finding for finding in findings if finding.state is state]
        if todo:
            console.print(f"\n{heading}", style=_STYLES[state])
        for finding in todo:
            # Commands must survive copying: no wrapping, no markup.
            console.print(f"  {finding.name}: {finding.found}", markup=False, highlight=False, soft_wrap=True)
            if finding.hint:
                console.print(f"    {finding.hint}", markup=False, highlight=False, soft_wrap=True)
    missing = any(finding.state is State.MISSING for finding in findings)
    console.print("\nSomething required is missing." if missing else "\nEverything required is here.")
    return int(missing)


_STYLES = {State.OK: "green", State.NOTE: "yellow", State.MISSING: "bold red"}


def _table(title: str, findings: list[Finding]) -> Table:
    table = Table("what", "found", "state", title=title, title_justify="left", show_header=False, min_width=60)
    for finding in findings:
        table.add_row(finding.name, Text(finding.found), finding.state.value, style=_STYLES[finding.state])
    return table


def installed_requirements() -> list[str]:
    """The requirements in the installed package's metadata, those of its extras included; empty if not installed."""
    try:
        return metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:
        return []  # check_system says so


def install_source() -> str | None:
    """What pip was told to install, as its arguments: `-e FOLDER`, a folder, a URL, or `pseudolabel==VERSION`."""
    try:
        distribution = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        return None
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if not origin:
        return f"{PACKAGE}=={distribution.version}"
    source = shlex.quote(unquote(origin["url"].removeprefix("file://")))
    return f"-e {source}" if origin.get("dir_info", {}).get("editable") else source


def check_system() -> Iterator[Finding]:
    """Python, the platform and the package itself."""
    version = Version(platform.python_version())
    supported = Version("3.11") <= version < Version("3.13")
    yield Finding(
        "Python",
        f"{version} ({sys.executable})",
        State.OK if supported else State.MISSING,
        "" if supported else "Install Python 3.11 or 3.12 and create a new environment with it.",
    )
    yield Finding("platform", platform.platform())
    try:
        yield Finding(PACKAGE, metadata.version(PACKAGE))
    except metadata.PackageNotFoundError:
        root = Path(__file__).resolve().parents[2]
        yield Finding(PACKAGE, "not installed", State.MISSING, f"{PIP} -e {shlex.quote(str(root))}")


def check_packages(requirements: list[str]) -> Iterator[Finding]:
    """Each requirement against what is installed, the required ones first, then each extra as one finding."""
    extras: dict[str, list[Requirement]] = {}
    for requirement in sorted(map(Requirement, requirements), key=lambda r: r.name.lower()):
        if _is_wanted(requirement, ""):
            yield _check_required(requirement)
            continue
        for extra in EXTRA.findall(str(requirement.marker)):
            if _is_wanted(requirement, extra) and requirement.name != PACKAGE:
                extras.setdefault(extra, []).append(requirement)
    for extra, members in sorted(extras.items()):
        lacking = [requirement for requirement in members if not is_satisfied(requirement)]
        if lacking:
            found = "not installed, or too old or new: " + ", ".join(requirement.name for requirement in lacking)
            yield Finding(f"extra {extra}", found, State.NOTE, f"{PIP} {' '.join(map(_argument, lacking))}")
        else:
            yield Finding(f"extra {extra}", "complete")


def _check_required(requirement: Requirement) -> Finding:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        version = "not installed"
    found = f"{version} (wants {requirement.specifier or 'any'})"
    if is_satisfied(requirement):
        return Finding(requirement.name, found)
    return Finding(requirement.name, found, State.MISSING, f"{PIP} {_argument(requirement)}")


def is_satisfied(requirement: Requirement) -> bool:
    """Whether a version in the wanted range is installed, and all that the wanted extras of it bring in."""
    try:
        distribution = metadata.distribution(requirement.name)
    except metadata.PackageNotFoundError:
        return False
    if not requirement.specifier.contains(distribution.version, prereleases=True):
        return False
    members = [Requirement(text) for text in distribution.requires or [] if EXTRA.search(text)]
    wanted = [member for member in members if any(_is_wanted(member, extra) for extra in requirement.extras)]
    return all(is_satisfied(member) for member in wanted)


def _is_wanted(requirement: Requirement, extra: str) -> bool:
    """Whether this Python on this platform wants it, with the extra chosen."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _argument(requirement: Requirement) -> str:
    """The requirement without its marker, quoted for a shell."""
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return shlex.quote(f"{requirement.name}{extras}{requirement.specifier}")


def check_devices() -> Iterator[Finding]:
    """CPU cores, memory, and the accelerators that torch can use."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    yield Finding("CPU", f"{usable_cores()} cores, {memory:.0f} GiB memory, {platform.machine()}")
    try:
        import torch
    except (ImportError, OSError) as error:
        reinstall = f"{PIP} --force-reinstall torch"
        yield Finding("accelerators", f"unknown, because torch does not import: {error}", State.MISSING, reinstall)
        return
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        bfloat16 = "bfloat16" if device.major >= 8 else "no bfloat16 (float16 instead)"
        yield Finding(f"cuda:{index}", f"{device.name}, {device.total_memory / GIB:.0f} GiB memory, {bfloat16}")
    if torch.backends.mps.is_available():
        yield Finding("mps", "Apple GPU, memory shared with the CPU")
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        return
    if _driver_sees_gpu():
        found = f"the driver sees an NVIDIA GPU but torch {torch.__version__} cannot use it"
        plain = torch.__version__.partition("+")[0]
        hint = f"{PIP} --force-reinstall 'torch=={plain}'   # from an index that holds the CUDA build"
        yield Finding("accelerators", found, State.NOTE, hint)
    else:
        yield Finding("accelerators", "none; the CPU will do for Shapes, a GPU is wanted for Stable Diffusion")


def _driver_sees_gpu() -> bool:
    command = shutil.which("nvidia-smi")
    if command is None:
        return False
    try:
        listing = subprocess.run([command, "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listing.returncode == 0 and "GPU" in listing.stdout


def check_crf() -> Finding:
    """Run DenseCRF for real on a 16 x 16 image of two halves with one wrong pixel."""
    hint = f"{PIP} --force-reinstall --no-deps --no-binary :all: pydensecrf2   # needs a C++ compiler"
    try:
        import numpy as np
        from pydensecrf import densecrf
    except ImportError as error:
        return Finding("DenseCRF", f"does not import: {error}", State.MISSING, hint)
    size = 16
    truth = np.zeros((size, size), np.int64)
    truth[:, size // 2 :] = 1
    noisy = truth.copy()
    noisy[3, 3] = 1
    scores = np.where(noisy == np.arange(2)[:, None, None], 0.8, 0.2).astype(np.float32)
    crf = densecrf.DenseCRF2D(size, size, 2)
    crf.setUnaryEnergy(np.ascontiguousarray(-np.log(scores).reshape(2, -1)))
    crf.addPairwiseGaussian(sxy=3, compat=3)
    image = np.ascontiguousarray(np.repeat(truth[..., None] * 200, 3, 2).astype(np.uint8))
    crf.addPairwiseBilateral(sxy=10, srgb=10, rgbim=image, compat=4)
    labels = np.array(crf.inference(5)).reshape(2, size, size).argmax(0)
    if (labels == truth).all():
        return Finding("DenseCRF", "runs, and cleans a test image")
    return Finding("DenseCRF", "runs, but gives a wrong answer on a test image", State.MISSING, hint)


def check_model(folder: Path) -> Finding:
    """Whether every part that `model_index.json` names is there."""
    index = folder / "model_index.json"
    if index.is_file():
        parts = json.loads(index.read_text())
        wanted = [name for name, kind in parts.items() if isinstance(kind, list) and kind[0] is not None]
        lacking = [name for name in wanted if not (folder / name).is_dir()]
        if not lacking:
            return Finding("Shapes model", f"{', '.join(wanted)}; {_megabytes(folder)} in {folder}")
        found = f"{folder} lacks {', '.join(lacking)}"
    else:
        found = f"{index} is not there"
    return Finding("Shapes model", found, State.MISSING, _restore(folder))


def check_text_models(folder: Path) -> Finding:
    """Whether CLIP, the captioner and the spaCy pipeline that come with the package are there."""
    wanted = {"clip": "model.safetensors", "captioner": "model.safetensors", "nouns": "meta.json"}
    lacking = [part for part, file in wanted.items() if not (folder / part / file).is_file()]
    if lacking:
        return Finding("Shapes text models", f"{folder} lacks {', '.join(lacking)}", State.MISSING, _restore(folder))
    return Finding("Shapes text models", f"{', '.join(wanted)}; {_megabytes(folder)} in {folder}")


def _megabytes(folder: Path) -> str:
    return f"{sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / 1e6:.1f} MB"


def _restore(folder: Path) -> str:
    """How to get back what the package came with in `pseudolabel/shapes/models/<folder>`."""
    checkout = folder.parents[3]
    if (checkout / ".git").exists():
        return shlex.join(["git", "-C", str(checkout), "checkout", "--", f"{PACKAGE}/shapes/models"])
    if source := install_source():
        return f"{PIP} --force-reinstall --no-deps {source}"
    return "Unpack the source archive again: this copy is incomplete."


def check_storage() -> Iterator[Finding]:
    """Whether the cache of downloaded checkpoints and the working directory can be written, and their free space."""
    yield _check_folder(
        "cache of checkpoints",
        cache_folder(),
        "export HF_HOME=/a/folder/you/can/write",
        CHECKPOINT_GIB,
    )
    yield _check_folder("working directory", Path.cwd(), "Change to a folder you can write, or give --out one.", 1)


def cache_folder() -> Path:
    """Where the hub's client keeps what it downloads."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface"))
    return Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()


def _check_folder(name: str, folder: Path, hint: str, wanted_gib: float) -> Finding:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Finding(name, f"{folder} cannot be written: {error.strerror}", State.MISSING, hint)
    free = shutil.disk_usage(existing).free / GIB
    if free < wanted_gib:
        found = f"{folder} has {free:.1f} GiB free; {wanted_gib} GiB are wanted"
        return Finding(name, found, State.NOTE, hint)
    return Finding(name, f"{folder}, {free:.0f} GiB free")
