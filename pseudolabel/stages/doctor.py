"""`pseudolabel doctor`: what is installed, what is missing, and the command that fixes it.

Each check catches only the errors that it reports. Without a model it needs no installed package but `packaging`.
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
CHECKPOINT_GIB = 5  # of Stable Diffusion 1.5 in the cache
MODELS = (
    *(
        f"{model}/{part}"
        for model in ("shapes", "shapes-standard")
        for part in ("model_index.json", "scheduler", "text_encoder", "tokenizer", "unet", "vae")
    ),
    *(f"shapes-text/{file}" for file in ("clip/model.safetensors", "captioner/model.safetensors", "nouns/meta.json")),
)


@dataclass(frozen=True)
class Finding:
    """The result of a check; `hint` is a command or sentence for the user, and empty if nothing is to be done."""

    name: str
    found: str
    hint: str = ""
    is_optional: bool = False

    @property
    def state(self) -> str:
        """`ok`, `note` or `missing`; only the last makes the exit status 1."""
        return "ok" if not self.hint else "note" if self.is_optional else "missing"


@dataclass(frozen=True)
class Diagnosis:
    """All findings by section title."""

    sections: dict[str, list[Finding]]

    @property
    def exit_status(self) -> int:
        """0, or 1 if something required is missing."""
        return int(any(one.state == "missing" for findings in self.sections.values() for one in findings))

    def lines(self) -> list[str]:
        """The report; each hint is on a separate line after its finding."""
        lines = []
        for title, findings in self.sections.items():
            lines.append(title)
            for one in findings:
                lines += [f"  {one.state:8}{one.name}: {one.found}", *([f"          {one.hint}"] if one.hint else [])]
        return [*lines, "Something required is missing." if self.exit_status else "Everything required is here."]

    def notes(self) -> list[str]:
        """None."""
        return []


def diagnose(model: str = "", requirements: list[str] | None = None) -> Diagnosis:
    """Check versions, devices, the parts that ship with the package, storage, and a checkpoint.

    Args:
        model: name of a checkpoint, as `model.name`, to load and run once; none if empty.
        requirements: such as `torch>=2.6`, optional with a marker `extra == "..."`; None for the installed package's.
    """
    sections = {
        "System": list(check_system()),
        "Packages": list(check_packages(installed_requirements() if requirements is None else requirements)),
        "Devices": list(check_devices()),
        "Parts": [check_crf(), check_models(Path(resolve(NAME, "diffusion")).parent)],
        "Storage": list(check_storage()),
    }
    if model:
        from pseudolabel.stages.checkpoint_check import check_checkpoint

        sections[f"Model {model}"] = list(check_checkpoint(model))
    return Diagnosis(sections)


def installed_requirements() -> list[str]:
    """The requirements of the installed package and its extras; empty if it is not installed."""
    return (metadata.requires(PACKAGE) or []) if _version(PACKAGE) else []


def check_system() -> Iterator[Finding]:
    """Python, the platform and the package itself."""
    python = platform.python_version()
    is_supported = Version("3.11") <= Version(python) < Version("3.14")
    hint = "" if is_supported else "Install Python 3.11, 3.12 or 3.13; make a new environment with it."
    yield Finding("Python", f"{python} ({sys.executable})", hint)
    yield Finding("platform", platform.platform())
    version, root = _version(PACKAGE), shlex.quote(str(Path(__file__).resolve().parents[2]))
    yield Finding(PACKAGE, version or "not installed", "" if version else f"{PIP} -e {root}")


def check_packages(requirements: list[str]) -> Iterator[Finding]:
    """The installed version of each requirement, the required ones first, then each extra as one finding."""
    extras: dict[str, list[Requirement]] = {}
    for requirement in sorted(map(Requirement, requirements), key=lambda one: one.name.lower()):
        if _applies(requirement):
            found = f"{_version(requirement.name) or 'not installed'} (wants {requirement.specifier or 'any'})"
            yield Finding(requirement.name, found, _install([] if _is_satisfied(requirement) else [requirement]))
            continue
        for extra in EXTRA.findall(str(requirement.marker)):
            if _applies(requirement, extra) and requirement.name != PACKAGE:
                extras.setdefault(extra, []).append(requirement)
    for extra, members in sorted(extras.items()):
        lacking = [requirement for requirement in members if not _is_satisfied(requirement)]
        found = "not installed, or too old or new: " + ", ".join(one.name for one in lacking) if lacking else "complete"
        yield Finding(f"extra {extra}", found, _install(lacking), is_optional=True)


def _is_satisfied(requirement: Requirement) -> bool:
    return bool(version := _version(requirement.name)) and requirement.specifier.contains(version, prereleases=True)


def _version(name: str) -> str:
    """The version of an installed package; empty if it is not installed."""
    return next((found.version for found in metadata.distributions(name=name)), "")


def _applies(requirement: Requirement, extra: str = "") -> bool:
    """Whether this Python on this platform needs it, with the extra chosen."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _install(requirements: list[Requirement]) -> str:
    """The command that installs requirements, without their markers; empty without any."""
    return f"{PIP} {shlex.join(str(one).partition(';')[0] for one in requirements)}" if requirements else ""


def check_devices() -> Iterator[Finding]:
    """CPU cores, memory, and the accelerators that torch can use."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    yield Finding("CPU", f"{usable_cores()} cores, {memory:.0f} GiB memory, {platform.machine()}")
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("accelerators", f"unknown: torch does not import: {error}", f"{PIP} --force-reinstall torch")
        return
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        bfloat16 = "bfloat16" if device.major >= 8 else "no bfloat16 (float16 instead)"
        yield Finding(f"cuda:{index}", f"{device.name}, {device.total_memory / GIB:.0f} GiB memory, {bfloat16}")
    if torch.backends.mps.is_available():
        yield Finding("mps", "Apple GPU, memory shared with the CPU")
    elif not torch.cuda.is_available() and _driver_finds_gpu():
        found = f"the driver finds an NVIDIA GPU but torch {torch.__version__} cannot use it"
        hint = f"{PIP} --force-reinstall torch=={torch.__version__.partition('+')[0]}   # from an index of CUDA builds"
        yield Finding("accelerators", found, hint, is_optional=True)
    elif not torch.cuda.is_available():
        yield Finding("accelerators", "none; the CPU is enough for Shapes, Stable Diffusion needs a GPU")


def _driver_finds_gpu() -> bool:
    try:
        return b"GPU" in subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return False


def check_crf() -> Finding:
    """Run DenseCRF on a 16 x 16 image of two halves with one wrong pixel."""
    hint = f"{PIP} --force-reinstall --no-deps scipy"
    try:
        import numpy as np

        from pseudolabel.config import CrfConfig
        from pseudolabel.crf.densecrf import refine_probabilities
    except ImportError as error:
        return Finding("DenseCRF", f"does not import: {error}", hint)
    truth = np.indices((16, 16))[1] // 8
    scores = np.where(truth == np.arange(2)[:, None, None], 0.8, 0.2).astype(np.float32)
    scores[:, 3, 3] = 0.2, 0.8
    image = np.repeat(truth[..., None] * 200, 3, 2).astype(np.uint8)
    settings = CrfConfig(gaussian_sxy=3, bilateral_sxy=10, bilateral_srgb=10)
    if (refine_probabilities(image, scores, settings)[0] == truth).all():
        return Finding("DenseCRF", "runs, and cleans a test image")
    return Finding("DenseCRF", "runs, but gives a wrong answer on a test image", hint)


def check_models(folder: Path) -> Finding:
    """Whether the small models in `pseudolabel/shapes/models` are complete; git restores a checkout's."""
    lacking = [name for name in MODELS if not (folder / name).exists()]
    if not lacking:
        return Finding("Shapes models", f"complete, in {folder}")
    checkout, hint = folder.parents[2], "Install the package again: this copy is incomplete."
    if (checkout / ".git").exists():
        hint = shlex.join(["git", "-C", str(checkout), "checkout", "--", f"{PACKAGE}/shapes/models"])
    return Finding("Shapes models", f"{folder} lacks {', '.join(lacking)}", hint)


def check_storage() -> Iterator[Finding]:
    """Whether the cache of checkpoints and the working directory can be written, and their free space."""
    yield _check_folder("cache of checkpoints", cache_folder(), CHECKPOINT_GIB, "export HF_HOME=/a/writable/folder")
    yield _check_folder("working directory", Path.cwd(), 1, "Change to a writable folder, or give --out one.")


def _check_folder(name: str, folder: Path, wanted_gib: int, hint: str) -> Finding:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        return Finding(name, f"{folder} cannot be written: {error.strerror}", hint)
    free = shutil.disk_usage(existing).free / GIB
    found = f"{folder}, {free:.1f} GiB free ({wanted_gib} wanted)"
    return Finding(name, found, hint if free < wanted_gib else "", is_optional=True)


def cache_folder() -> Path:
    """The download folder of the hub's client."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface"))
    return Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
