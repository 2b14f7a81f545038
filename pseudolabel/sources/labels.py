"""Image-level labels as people write them, turned into vocabulary indices."""

import re
from collections.abc import Iterable

from pseudolabel.vocabulary import Vocabulary, VocabularyError

_SEPARATORS = re.compile(r"[,;|]")

Problem = tuple[str, str]
Labels = tuple[tuple[int, ...], Problem | None]
"""The sorted vocabulary indices, and None; or (), and what keeps the labels from being understood."""


class LabelReader:
    """Turns names and indices into vocabulary indices.

    A label is a class name in any spelling the vocabulary knows, or an integer: the 0-based index of a class,
    background not counted, as CLIP-ES and AffinityNet number them. Text of digits alone is such an index too, unless it
    is a name.

    Args:
        vocabulary: the classes.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._names: dict[str, int | str] = {}
        self._known: dict[object, tuple[int, ...]] = {}

    def read(self, labels: object, origin: str) -> Labels:
        """Read the labels of one image.

        Args:
            labels: a list of names or indices, one of them alone, or names in one text separated by `,` `;` or `|`.
                None and blank text are no labels.
            origin: the file and line for the message of a problem.
        """
        text = _text(labels)
        if text in self._known:
            return self._known[text], None
        classes = set()
        for label in _split(labels):
            index = self._name(label.strip()) if isinstance(label, str) else self._number(label)
            if isinstance(index, str):
                return (), ("unknown_class", f"{origin}: {index}")
            classes.add(index)
        found = tuple(sorted(classes))
        if text is not None:
            self._known[text] = found
        return found, None

    def _name(self, name: str) -> int | str:
        """Vocabulary index, or why there is none; remembered, since a million rows repeat few names."""
        if name not in self._names:
            try:
                self._names[name] = self._vocabulary.index(name)
            except VocabularyError as error:
                self._names[name] = self._number(int(name)) if re.fullmatch(r"[0-9]{1,9}", name) else str(error)
        return self._names[name]

    def _number(self, label: object) -> int | str:
        """Vocabulary index of a 0-based one, or why there is none."""
        if not isinstance(label, int) or isinstance(label, bool):
            return f"label {label!r:.80} is neither a class name nor an index"
        if not 0 <= label < len(self._vocabulary):
            return (
                f"label index {label} is outside 0..{len(self._vocabulary) - 1} of vocabulary "
                f"'{self._vocabulary.name}' (indices start at 0 and leave background out)"
            )
        return label + 1


def _text(labels: object) -> object:
    """What labels of text can be looked up by, since a million rows repeat few combinations; None for others."""
    if isinstance(labels, str):
        return labels
    return tuple(labels) if isinstance(labels, list) and {*map(type, labels)} <= {str} else None


def _split(labels: object) -> Iterable[object]:
    if labels is None:
        return ()
    if isinstance(labels, str):
        return filter(str.strip, _SEPARATORS.split(labels))
    return labels if isinstance(labels, (list, tuple)) else (labels,)
