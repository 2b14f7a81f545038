"""What label and caption files call the images, brought together with the keys of a source."""

from collections.abc import Iterable, Iterator
from unicodedata import normalize

from pseudolabel.errors import SourceError
from pseudolabel.io.image_formats import HEIF_SUFFIXES, IMAGE_SUFFIXES
from pseudolabel.io.image_list import stem
from pseudolabel.sources.entry import Entry, key_of

_SHOWN = 3
_SUFFIXES = (*IMAGE_SUFFIXES, *HEIF_SUFFIXES, ".jpg_large")


def match_ids(ids: Iterable[str], entries: Iterable[Entry], origin: str) -> dict[str, str]:
    """Find the image of each id in a file.

    An id is a key, an image's name with or without suffix, or a path. Folders in front that only one of id and key has
    do not matter, as long as one image alone is meant: `JPEGImages/a.jpg` is `a`, and `a` is `train/a`. Accents may be
    composed or not. Where several ids fit an image, its name is preferred to its key
    alone (of `a.b.jpg` the id `a.b` rather than `a_b`), and then the one with fewer differences.

    Args:
        ids: as the file has them.
        entries: of the source.
        origin: the file, for messages.

    Returns:
        The key by id, for those ids that are of an image of the source.

    Raises:
        SourceError: if two ids fit an image equally well.
    """
    by_key = {entry.key: entry for entry in entries}
    names = _Names(by_key)
    best: dict[str, tuple[tuple[bool, int], str]] = {}
    alike: dict[str, str] = {}  # another id that fits as well as the best, by key
    for name in ids:
        found = names.find(name)
        if found is None:
            continue
        steps, key = found
        differences = (not _is_name_of(by_key[key], name), steps)
        if key not in best or differences < best[key][0]:
            best[key] = (differences, name)
            alike.pop(key, None)
        elif differences == best[key][0]:
            alike[key] = name
    for key, name in alike.items():
        raise SourceError(
            f"'{origin}' has both '{best[key][1]}' and '{name}', and each may mean image '{key}'; keep one of them"
        )
    return {name: key for key, (_, name) in best.items()}


def _is_name_of(entry: Entry, name: str) -> bool:
    """Whether an id that fits an image's key is the image's own name too, as far as both have folders."""
    own, folders = _name_parts(entry.image_name), entry.key.count("/") + 1
    parts = _name_parts(name)
    shared = min(len(own), len(parts), folders)
    whole = own[-shared:]
    *above, last = parts[-shared:]
    return above == whole[:-1] and stem(whole[-1]) in (last, stem(last))


def _name_parts(path: str) -> list[str]:
    return normalize("NFC", path).replace("\\", "/").split("/")


def describe_ids(ids: Iterable[str]) -> str:
    """The first ids for a message, and how many there are: `'a', 'b', 'c', ... (12)`."""
    listed = list(ids)
    shown = ", ".join(f"'{name:.80}'" for name in listed[:_SHOWN])
    return f"{shown}, ... ({len(listed):,} in all)" if len(listed) > _SHOWN else shown or "none"


class _Names:
    """A source's keys, by all the names that identify one of them."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = {normalize("NFC", key): key for key in keys}
        self._endings: dict[str, str | None] | None = None

    def find(self, name: str) -> tuple[int, str] | None:
        """How many steps away from the id the key is, and the key; None if there is none, or no telling which."""
        spellings: list[str] = []
        for spelling in _spellings(normalize("NFC", name)):
            if spelling in self._keys:
                return len(spellings), self._keys[spelling]
            spellings.append(spelling)
        for spelling in spellings:
            folders = spelling.split("/")
            for dropped in range(1, len(folders)):
                shorter = "/".join(folders[dropped:])
                if shorter in self._keys:
                    return len(spellings) + dropped, self._keys[shorter]
        if self._endings is None:
            self._endings = self._list_endings()
        for spelling in spellings:
            key = self._endings.get(spelling)
            if key is not None:
                return len(spellings) + key.count("/"), key
        return None

    def _list_endings(self) -> dict[str, str | None]:
        """Keys by what remains of them without the first folders; None where two keys end so."""
        endings: dict[str, str | None] = {}
        for composed, key in self._keys.items():
            _, slash, ending = composed.partition("/")
            while slash:
                endings[ending] = None if ending in endings else key
                _, slash, ending = ending.partition("/")
        return endings


def _spellings(name: str) -> Iterator[str]:
    """Possible keys of an image of this name, the most likely first."""
    yield name
    for path in (name, name.replace("\\", "/")) if "\\" in name else (name,):
        if not path.strip("./"):
            continue
        yield key_of(f"{path}.jpg")  # all of it is the name: frame.0.5
        if path.lower().endswith(_SUFFIXES):
            yield key_of(path)
