"""The images that `segment` was given."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pseudolabel.errors import UserError
from pseudolabel.io.left_out import LeftOut
from pseudolabel.io.names import is_printable, printable
from pseudolabel.io.ownership import without_own_files
from pseudolabel.io.terminal import escaped
from pseudolabel.io.walk import find_images


@dataclass
class ListedImages:
    """The images below paths.

    Attributes:
        images: path by name, which is the path below the folder that was given, or the file's name, without suffix.
        failures: the reasons why other images cannot be taken, by path.
        left_out: files that are not taken.
    """

    images: dict[str, Path] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    left_out: LeftOut = field(default_factory=LeftOut)


def list_images(paths: Sequence[str]) -> ListedImages:
    """Images by name, without files that this package wrote.

    Raises:
        UserError: if a path does not exist, or there is no image.
    """
    listed = ListedImages()
    for root in (Path(path).expanduser() for path in paths):
        if not root.exists():
            raise UserError(f"no file or folder '{shown(root)}'; give images, or folders that hold them")
        for name in _names_below(root, listed) if root.is_dir() else [root.name]:
            _add(listed, root / name if root.is_dir() else root, name)
    if not listed.images and not listed.failures:
        left_out = f"; {listed.left_out}" if listed.left_out.total else ""
        raise UserError(f"no images in {', '.join(map(repr, paths))}{left_out}")
    return listed


def shown(path: Path) -> str:
    """A path for messages, on one line."""
    return escaped(printable(str(path)))


def _names_below(root: Path, listed: ListedImages) -> list[str]:
    found, left_out = without_own_files(str(root), *find_images(str(root)))
    listed.left_out += left_out
    return found


def _add(listed: ListedImages, path: Path, name: str) -> None:
    if not is_printable(name):
        listed.failures[str(path)] = f"'{shown(path)}': its name is not UTF-8 text; rename it"
        return
    stem = str(Path(name).with_suffix(""))
    first = listed.images.setdefault(stem, path)
    if first.resolve() != path.resolve():
        message = f"'{shown(path)}' would be written as '{stem}.png', like '{shown(first)}'; rename one of them"
        listed.failures[str(path)] = message
    elif first != path:
        listed.left_out += LeftOut({"named twice": 1})
