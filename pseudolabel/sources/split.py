"""Splits: the lists of image ids that data sets come with, one id per line."""

from pseudolabel.io.filesystem import open_filesystem
from pseudolabel.sources.entry import SourceError
from pseudolabel.sources.files import join, read_text


def read_split(folder: str, split: str) -> dict[str, str]:
    """Image id to the line that names it, for messages; a second column, as in VOC's ImageSets/Main, is left out.

    Args:
        folder: where the data set's lists are.
        split: a list's name without `.txt`, or the path of a list of the user's own, which ends so.

    Raises:
        SourceError: if there is no such list, or it names an image twice.
    """
    path = split if split.endswith(".txt") else join(folder, f"{split}.txt")
    text = read_text(path, f"--source.split can be {_names_of_lists(folder)}, or the path of a list")
    origins: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        name, origin = line.split()[0], f"{path} line {number}"
        if name in origins:
            raise SourceError(f"'{name}' is listed twice: {origins[name]} and {origin}; remove one of the lines")
        origins[name] = origin
    return origins


def _names_of_lists(folder: str) -> str:
    fs, name = open_filesystem(folder)
    lists = sorted(path.rpartition("/")[2].removesuffix(".txt") for path in fs.glob(f"{name}/*.txt"))
    return ", ".join(lists) or f"the name of a list once there is one in '{folder}'"
