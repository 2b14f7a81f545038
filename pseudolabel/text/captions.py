"""Captions that continue a class's prompt: where they are kept and how they are found again."""

import json
from collections.abc import Iterable, Sequence

from pseudolabel.errors import SourceError
from pseudolabel.io.jsonl import read_records
from pseudolabel.sources.entry import Entry
from pseudolabel.sources.image_ids import describe_ids, match_ids
from pseudolabel.vocabulary import Vocabulary

Captions = dict[tuple[str, str], str]
"""Captions by (key, class name); the name is empty where a caption is of the image as a whole."""

HINT = "name a JSONL file of {key, class, caption} lines, or a folder of such files, with `captions.source`"
_FIELDS = ("key", "class", "caption")
_TEXT = {
    "key": "write the image's key, name or path in quotes",
    "class": 'write the class\'s name, or "" for the image as a whole',
    "caption": 'write "" for an image without a caption',
}


def load_captions(source: str) -> Captions:
    """Captions by (key, class name), as they are written in a JSONL file, or in every `*.jsonl` file of a folder.

    An empty caption (of an image that could not be read) is replaced by any other.

    Raises:
        SourceError: if there is no such file, or a line is no caption; the message names file and line.
    """
    captions: Captions = {}
    for origin, record in read_records(source, "caption", HINT):
        for field in _FIELDS:
            value = record.get(field)
            if not isinstance(value, str):
                found = "missing" if field not in record else f"{json.dumps(value)!s:.60}"
                raise SourceError(f"{origin}: not a caption: {field} is {found}, where text is needed; {_TEXT[field]}")
        key, name, caption = (record[field] for field in _FIELDS)
        captions[key, name] = caption or captions.get((key, name), "")
    return captions


def match_captions(captions: Captions, entries: Sequence[Entry], vocabulary: Vocabulary, source: str) -> Captions:
    """The captions of a source's images, by the images' own keys and the classes' own names.

    Keys in the file may be file names or paths, as in label files; classes may be written in any spelling that the
    vocabulary knows. Captions of other images and classes are left out.

    Args:
        captions: as `load_captions` reads them.
        entries: the images.
        vocabulary: the classes.
        source: the file or folder, for messages.

    Raises:
        SourceError: if two keys stand for one image.
    """
    keys = match_ids({key: None for key, _ in captions}, entries, source)
    found: Captions = {}
    for (name, spelling), caption in captions.items():
        index = vocabulary.find(spelling)
        if name in keys and (index is not None or not spelling):
            pair = keys[name], vocabulary.names[index] if index is not None else ""
            found[pair] = caption or found.get(pair, "")
    return found


def check_images(captions: Captions, matched: Captions, entries: Sequence[Entry], source: str) -> None:
    """Check that the captions belong to the images.

    Args:
        captions: as `load_captions` reads them.
        matched: those that `match_captions` found for the images.
        entries: the images.
        source: the file or folder, for the message.

    Raises:
        SourceError: if none is of an image and a class; the message names both sides.
    """
    if captions and entries and not matched:
        keys, names = (list(dict.fromkeys(pair[place] for pair in captions)) for place in (0, 1))
        raise SourceError(
            f"'{source}' has captions of none of the images: its keys are {describe_ids(keys)} "
            f"with classes {describe_ids(names)}, and the images are {describe_ids(entry.key for entry in entries)}; "
            "it may belong to another data set or vocabulary"
        )


def check_complete(captions: Captions, entries: Iterable[Entry], vocabulary: Vocabulary, source: str) -> None:
    """Make sure that every labelled (image, class) has a caption, but for images that are failures already.

    Args:
        captions: as `match_captions` gives them.
        entries: the images.
        vocabulary: the classes.
        source: the file or folder, for the message.

    Raises:
        SourceError: if some have none; the message counts them and names the first.
    """
    readable = (entry for entry in entries if entry.problem is None)
    pairs = [(entry.key, vocabulary.names[index]) for entry in readable for index in entry.classes]
    missing = [pair for pair in pairs if pair not in captions]
    if missing:
        key, name = missing[0]
        whole = ""
        if (key, "") in captions:
            whole = "captions with an empty class are of the whole image, which `method` diffseg alone takes; "
        raise SourceError(
            f"'{source}' lacks {len(missing)} of {len(pairs)} captions, the first for class '{name}' of '{key}'; "
            f"{whole}'pseudolabel caption' writes those that are missing, `captions.source` none does without"
        )
