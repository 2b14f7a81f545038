"""Build the wheel, install it in a new environment of each Python here, and run the fast tests with it.

    python scripts/check_interpreters.py                        # Python 3.11 to 3.14, as far as they are found
    python scripts/check_interpreters.py --pythons python3.12
    python scripts/check_interpreters.py --newest               # the newest versions of all dependencies

Interpreters are looked for on PATH and among pyenv's. Dependencies are those of constraints.txt; with `--newest`, the
newest that pyproject.toml allows. The exit status is 1 if an interpreter fails.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parents[1]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
CONSTRAINTS = REPOSITORY / "constraints.txt"
READERS = REPOSITORY / "tests" / "exports" / "readers.txt"
PASSED = r"\d+ passed(, \d+ (skipped|warnings?))*"
SLOW_FOLDERS = ("bench", "e2e", "train")  # as in the Makefile


def main() -> int:
    args = parse_arguments()
    pythons = args.pythons or list(find_pythons())
    if not pythons:
        raise SystemExit(f"no Python {' or '.join(VERSIONS)} found; name one with --pythons")
    results: dict[str, str] = {}
    with TemporaryDirectory(prefix="interpreters-") as folder:
        wheel = build_wheel(Path(folder))
        for number, python in enumerate(pythons):
            results[python] = check(python, wheel, Path(folder, str(number)), args.newest)
    table = Table("Python", "result")
    for python, result in results.items():
        table.add_row(python, result)
    Console().print(table)
    return int(not all(re.fullmatch(PASSED, result) for result in results.values()))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pythons", nargs="+", metavar="PYTHON", help="interpreters, by name or path")
    parser.add_argument("--newest", action="store_true", help="install the newest dependencies, not the pinned ones")
    return parser.parse_args()


def find_pythons() -> Iterator[str]:
    """One interpreter of each version, on PATH or else among pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    for version in VERSIONS:
        candidates = [shutil.which(f"python{version}"), *sorted(map(str, pyenv.glob(f"{version}*/bin/python")))]
        yield from [python for python in candidates if python and _runs(python)][:1]


def _runs(python: str) -> bool:
    """Whether an interpreter starts: pyenv has names on PATH for versions that it does not select."""
    return subprocess.run([python, "-c", "import venv"], capture_output=True).returncode == 0


def build_wheel(folder: Path) -> Path:
    """The wheel of this checkout."""
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(folder), str(REPOSITORY)]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


def check(python: str, wheel: Path, folder: Path, newest: bool) -> str:
    """Install the wheel and its extras, run it, and run the fast tests: what failed, or the tests' last line."""
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    own = folder / "bin" / "python"
    pins = [] if newest else ["-c", str(CONSTRAINTS)]
    pip = [str(own), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    print(f"{python}: installing", flush=True)
    if not newest:  # the CPU build, where pip's settings offer it
        torch = next(line for line in CONSTRAINTS.read_text().splitlines() if line.startswith("torch=="))
        subprocess.run([*pip, f"{torch}+cpu"], capture_output=True)
    for requirements in ([*pins, f"{wheel}[crf,train,dev]"], ["--no-deps", "-r", str(READERS)]):
        if subprocess.run([*pip, *requirements]).returncode:
            return "packages cannot be installed"
    print(f"{python}: testing", flush=True)
    if subprocess.run([own, "-m", "pseudolabel", "doctor", "--model", "shapes"], cwd=folder).returncode:
        return "the installed wheel does not run"
    # Tests read sources as well, so the checkout takes the wheel's place.
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "-e", str(REPOSITORY)], check=True)
    return run_tests(own)


def run_tests(python: Path) -> str:
    """The last line of the fast tests."""
    ignored = [f"--ignore=tests/{name}" for name in SLOW_FOLDERS]
    command = [str(python), "-m", "pytest", "-q", "-n", "2", "-m", "not slow", *ignored]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["OMP_NUM_THREADS"] = "1"
    tests = subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True)
    if tests.returncode:
        print(tests.stdout)
    return re.sub(r" in [\d.]+s.*", "", tests.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
