"""`pseudolabel doctor`: what is installed, what is missing, and the command that fixes it.

Every check yields findings and catches only the errors that it looks for. Nothing beside `packaging` must be installed.
"""

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

from packaging.requirements import Requirement
from packaging.version import Version

from pseudolabel.io.shipped import NAME, resolve
from pseudolabel.runtime.cores import usable_cores

PACKAGE = "pseudolabel"
PIP = f"{shlex.quote(sys.executable)} -m pip install"
GIB = 2**30
EXTRA = re.compile(r"""extra == ["']([^"']+)["']""")
CHECKPOINT_GIB = 5  # what Stable Diffusion 1.5 takes in the cache
MODELS = [f"shapes/{part}" for part in ("model_index.json", "scheduler", "text_encoder", "tokenizer", "unet", "vae")]
MODELS += [
    f"shapes-text/{part}" for part in ("clip/model.safetensors", "captioner/model.safetensors", "nouns/meta.json")
]


class State(StrEnum):
    """How a finding bears on the exit status: only `MISSING` makes it 1."""

    OK = "ok"
    NOTE = "note"
    MISSING = "missing"


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        name: what was checked.
        found: what there is.
        state: whether that is enough.
        hint: a command, or a sentence where no command helps; empty where nothing is to be done.
    """

    name: str
    found: str
    state: State = State.OK
    hint: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All findings, those about one subject under its title."""

    sections: dict[str, list[Finding]]

    @property
    def exit_status(self) -> int:
        """0, or 1 where something required is missing."""
        return int(any(one.state is State.MISSING for findings in self.sections.values() for one in findings))

    def lines(self) -> list[str]:
        """The report; a hint follows its finding on a line of its own, to be copied."""
        lines = []
        for title, findings in self.sections.items():
            lines.append(title)
            for one in findings:
                lines.append(f"  {one.state:8}{one.name}: {one.found}")
                lines += [f"          {one.hint}"] if one.hint else []
        return [*lines, "Something required is missing." if self.exit_status else "Everything required is here."]


def diagnose(requirements: list[str] | None = None) -> Diagnosis:
    """Check versions, devices, the parts that ship with the package, and storage.

    Args:
        requirements: requirement strings such as `torch>=2.6`, as in a package's metadata; by default those of the
            installed package. Those under an `extra == "..."` marker are optional.
    """
    return Diagnosis(
        {
            "System": list(check_system()),
            "Packages": list(check_packages(installed_requirements() if requirements is None else requirements)),
            "Devices": list(check_devices()),
            "Parts": [check_crf(), check_models(Path(resolve(NAME, "diffusion")).parent)],
            "Storage": list(check_storage()),
        }
    )


def installed_requirements() -> list[str]:
    """The requirements in the installed package's metadata, those of its extras included; empty if not installed."""
    try:
        return metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:
        return []  # check_system reports it


def check_system() -> Iterator[Finding]:
    """Python, the platform and the package itself."""
    python = f"{platform.python_version()} ({sys.executable})"
    if Version("3.11") <= Version(platform.python_version()) < Version("3.13"):
        yield Finding("Python", python)
    else:
        yield Finding("Python", python, State.MISSING, "Install Python 3.11 or 3.12; make a new environment with it.")
    yield Finding("platform", platform.platform())
    try:
        yield Finding(PACKAGE, metadata.version(PACKAGE))
    except metadata.PackageNotFoundError:
        root = Path(__file__).resolve().parents[2]
        yield Finding(PACKAGE, "not installed", State.MISSING, f"{PIP} -e {shlex.quote(str(root))}")


def check_packages(requirements: list[str]) -> Iterator[Finding]:
    """Each requirement beside what is installed, the required ones first, then each extra as one finding."""
    extras: dict[str, list[Requirement]] = {}
    for requirement in sorted(map(Requirement, requirements), key=lambda one: one.name.lower()):
        if _applies(requirement):
            yield _check_required(requirement)
            continue
        for extra in EXTRA.findall(str(requirement.marker)):
            if _applies(requirement, extra) and requirement.name != PACKAGE:
                extras.setdefault(extra, []).append(requirement)
    for extra, members in sorted(extras.items()):
        lacking = [requirement for requirement in members if not _is_satisfied(requirement)]
        if lacking:
            found = "not installed, or too old or new: " + ", ".join(requirement.name for requirement in lacking)
            yield Finding(f"extra {extra}", found, State.NOTE, f"{PIP} {' '.join(map(_argument, lacking))}")
        else:
            yield Finding(f"extra {extra}", "complete")


def _check_required(requirement: Requirement) -> Finding:
    found = f"{_version(requirement) or 'not installed'} (wants {requirement.specifier or 'any'})"
    if _is_satisfied(requirement):
        return Finding(requirement.name, found)
    return Finding(requirement.name, found, State.MISSING, f"{PIP} {_argument(requirement)}")


def _is_satisfied(requirement: Requirement) -> bool:
    version = _version(requirement)
    return bool(version) and requirement.specifier.contains(version, prereleases=True)


def _version(requirement: Requirement) -> str:
    """Of the installed package; empty where there is none."""
    return next((found.version for found in metadata.distributions(name=requirement.name)), "")


def _applies(requirement: Requirement, extra: str = "") -> bool:
    """Whether this Python on this platform needs it, with the extra chosen."""
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
        found = f"unknown, because torch does not import: {error}"
        yield Finding("accelerators", found, State.MISSING, f"{PIP} --force-reinstall torch")
        return
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        bfloat16 = "bfloat16" if device.major >= 8 else "no bfloat16 (float16 instead)"
        yield Finding(f"cuda:{index}", f"{device.name}, {device.total_memory / GIB:.0f} GiB memory, {bfloat16}")
    if torch.backends.mps.is_available():
        yield Finding("mps", "Apple GPU, memory shared with the CPU")
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        return
    if _driver_finds_gpu():
        found = f"the driver finds an NVIDIA GPU but torch {torch.__version__} cannot use it"
        plain = torch.__version__.partition("+")[0]
        hint = f"{PIP} --force-reinstall 'torch=={plain}'   # from an index that holds the CUDA build"
        yield Finding("accelerators", found, State.NOTE, hint)
    else:
        yield Finding("accelerators", "none; the CPU is enough for Shapes, Stable Diffusion needs a GPU")


def _driver_finds_gpu() -> bool:
    try:
        command = ["nvidia-smi", "-L"]
        listing = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listing.returncode == 0 and "GPU" in listing.stdout


def check_crf() -> Finding:
    """Run DenseCRF on a 16 x 16 image of two halves with one wrong pixel."""
    hint = f"{PIP} --force-reinstall --no-deps --no-binary :all: pydensecrf2   # needs a C++ compiler"
    try:
        import numpy as np

        from pseudolabel.config import CrfConfig
        from pseudolabel.crf.pydensecrf_engine import mean_field
    except ImportError as error:
        return Finding("DenseCRF", f"does not import: {error}", State.MISSING, hint)
    truth = np.repeat([[0, 1]], 8, axis=1).repeat(16, axis=0)
    noisy = truth.copy()
    noisy[3, 3] = 1
    scores = np.where(noisy == np.arange(2)[:, None, None], 0.8, 0.2).astype(np.float32)
    image = np.repeat(truth[..., None] * 200, 3, 2).astype(np.uint8)
    settings = CrfConfig(gaussian_sxy=3, bilateral_sxy=10, bilateral_srgb=10)
    if (mean_field(image, scores, settings).argmax(0) == truth).all():
        return Finding("DenseCRF", "runs, and cleans a test image")
    return Finding("DenseCRF", "runs, but gives a wrong answer on a test image", State.MISSING, hint)


def check_models(folder: Path) -> Finding:
    """Whether the small models are there in `pseudolabel/shapes/models`; git restores what a checkout lacks."""
    lacking = [name for name in MODELS if not (folder / name).exists()]
    if not lacking:
        return Finding("Shapes models", f"complete, in {folder}")
    checkout, hint = folder.parents[2], "Install the package again: this copy is incomplete."
    if (checkout / ".git").exists():
        hint = shlex.join(["git", "-C", str(checkout), "checkout", "--", f"{PACKAGE}/shapes/models"])
    return Finding("Shapes models", f"{folder} lacks {', '.join(lacking)}", State.MISSING, hint)


def check_storage() -> Iterator[Finding]:
    """Whether the cache of checkpoints and the working directory can be written, and their free space."""
    places = [
        ("cache of checkpoints", cache_folder(), "export HF_HOME=/a/writable/folder", CHECKPOINT_GIB),
        ("working directory", Path.cwd(), "Change to a writable folder, or give --out one.", 1),
    ]
    for name, folder, hint, wanted_gib in places:
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(existing).free / GIB
        try:
            tempfile.TemporaryFile(dir=existing).close()
        except OSError as error:
            yield Finding(name, f"{folder} cannot be written: {error.strerror}", State.MISSING, hint)
            continue
        state = State.OK if free >= wanted_gib else State.NOTE
        yield Finding(
            name, f"{folder}, {free:.1f} GiB free ({wanted_gib} wanted)", state, "" if state is State.OK else hint
        )


def cache_folder() -> Path:
    """Where the hub's client keeps its downloads."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface"))
    return Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
