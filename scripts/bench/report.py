"""The figures of a benchmark as Markdown tables and as a JSON file, which replaces no file of another program."""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pseudolabel.errors import OutputError
from pseudolabel.io.ownership import own_files_beside, write_own

MIB = 2**20


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[object]], note: str = "") -> str:
    """A Markdown table under its title; all columns but the first are flush right."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    body = "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)
    return "\n\n".join(filter(None, [title, body, note]))


def free_file(text: str) -> Path:
    """The value of `--json`: a file that does not exist, or that a benchmark wrote."""
    try:
        files, name = own_files_beside(text, "--json")
        files.check([name])
    except OutputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return Path(text)


def write_report(path: Path, report: dict[str, Any]) -> None:
    text = json.dumps(report, indent=2, default=str)
    write_own(str(path), f"{text}\n".encode(), "--json")
