"""Captions that continue a class's prompt: where they are kept and how they are found again."""

from collections.abc import Iterable

from pseudolabel.sources.entry import Entry, SourceError
from pseudolabel.sources.jsonl import read_lines
from pseudolabel.vocabulary import Vocabulary

Captions = dict[tuple[str, str], str]
"""Captions by (key, class name); the name is empty where a caption is of the image as a whole."""

MEND = "name a JSONL file of {key, class, caption} lines, or a folder of such files, with --captions.source"


def load_captions(source: str) -> Captions:
    """Captions by (key, class name) from a JSONL file, or from every `*.jsonl` file of a folder.

    An empty caption, which stands for an image that could not be read, gives way to any other.

    Raises:
        SourceError: if there is no such file, or a line is no caption; the message names file and line.
    """
    captions: Captions = {}
    for key, name, caption in read_lines(source, ("key", "class", "caption"), "caption", MEND):
        captions[key, name] = caption or captions.get((key, name), "")
    return captions


def check_complete(captions: Captions, entries: Iterable[Entry], vocabulary: Vocabulary, source: str) -> None:
    """Make sure that every labelled (image, class) has a caption, but for images that are failures already.

    Raises:
        SourceError: if some have none; the message counts them and names the first.
    """
    sound = (entry for entry in entries if entry.problem is None)
    pairs = [(entry.key, vocabulary.names[index]) for entry in sound for index in entry.classes]
    missing = [pair for pair in pairs if pair not in captions]
    if missing:
        key, name = missing[0]
        raise SourceError(
            f"'{source}' lacks {len(missing)} of {len(pairs)} captions, the first for class '{name}' of '{key}'; "
            "'pseudolabel caption' writes those that are missing, --captions.source none does without"
        )
