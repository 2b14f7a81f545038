"""The file for a benchmark's figures, which takes the place of no other."""

import argparse
import json
from pathlib import Path
from typing import Any

from pseudolabel.errors import OutputError
from pseudolabel.io.ownership import own_files_beside, write_own


def free_file(text: str) -> Path:
    """The value of `--json`: a file that is not there, or that a benchmark wrote."""
    try:
        files, name = own_files_beside(text, "--json")
        files.check([name])
    except OutputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return Path(text)


def write_report(path: Path, report: dict[str, Any]) -> None:
    write_own(str(path), (json.dumps(report, indent=2) + "\n").encode(), "--json")
