"""A folder that belongs to one program, such as a script that starts from an empty folder each time."""

import json
import shutil
from pathlib import Path

from pseudolabel.errors import OutputError

MARKER = ".pseudolabel.owner"


def claim_folder(folder: Path, owner: str, option: str = "`out`") -> None:
    """Create a folder for a program, or check that the same program created it.

    Args:
        folder: must be absent, empty, or the program's own.
        owner: the program's name.
        option: the option that names the folder, for the message.

    Raises:
        OutputError: if the folder holds other files, or cannot be created.
    """
    marker = folder / MARKER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if marker.exists() and json.loads(marker.read_text(encoding="utf-8")) == {"owner": owner}:
            return
        if any(folder.iterdir()):
            raise OutputError(f"'{folder}' holds files that {owner} did not write; choose another {option}")
        marker.write_text(json.dumps({"owner": owner}) + "\n", encoding="utf-8")
    except (OSError, ValueError) as error:
        raise OutputError(f"'{folder}' cannot be used: {error}; choose another {option}") from error


def clear_folder(folder: Path, owner: str, option: str = "`out`") -> None:
    """Claim a folder and remove everything in it.

    Raises:
        OutputError: as `claim_folder` does.
    """
    claim_folder(folder, owner, option)
    for path in folder.iterdir():
        if path.name == MARKER:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
