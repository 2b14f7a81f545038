"""Image-level labels as people write them, turned into vocabulary indices."""

import ast
import json
import math
import re
from collections.abc import Iterable

import numpy as np

from pseudolabel.errors import SampleError, VocabularyError
from pseudolabel.vocabulary import Vocabulary

UNKNOWN_CLASS = "unknown_class"
UNCLEAR_LABELS = "unclear_labels"
LABEL_PROBLEMS = (UNKNOWN_CLASS, UNCLEAR_LABELS)

_SEPARATORS = re.compile(r"[,;|]")
_NUMBER = re.compile(r"[0-9]{1,9}(?:\.0*)?")
_NUMBERS_WITH_BLANKS = re.compile(r"[0-9.]+(?:\s+[0-9.]+)+")
_ITEM = r"""'[^']*'|"[^"]*"|[0-9.]+|True|False"""
_LIST_WITHOUT_COMMAS = re.compile(rf"\[\s*(?:{_ITEM})(?:\s+(?:{_ITEM}))+\s*\]")  # as NumPy prints arrays
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
_QUOTES = "'\""
_BOOLEANS = {"True": True, "False": False}

Labels = tuple[tuple[int, ...], SampleError | None]
"""The sorted vocabulary indices and None; or (), and the reason why the labels cannot be read."""


class LabelReader:
    """Turns names, indices and one-hot vectors into vocabulary indices.

    A label is a class name in any spelling the vocabulary knows, or an integer: the 0-based index of a class,
    background not counted, as CLIP-ES and AffinityNet number them. Text of digits alone is such an index too, unless it
    is a name; `3.0` is 3. No index may come twice.

    As many numbers as the vocabulary has classes, all of them 0 or 1, are a one-hot vector, and so are as many
    booleans. With three classes or more no list of indices looks so. With one or two, `[0]`, `[0, 1]` and `[1, 0]`
    could be either, and are a problem instead of a guess; booleans are always a vector.

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
            labels: a list (or NumPy array) of names or indices, one of them alone, a one-hot vector, names in one text
                separated by `,` `;` or `|`, or a list written as text. None, NaN and blank text are no labels.
            origin: the file and line, for messages.

        Returns:
            The indices; or a failure of status `unknown_class`, if a name or index is not in the vocabulary, or
            `unclear_labels`, if the labels are ambiguous or of no known form.
        """
        text = _text(labels)
        if text in self._known:
            return self._known[text], None
        try:
            found = tuple(sorted(self._classes(self._split(labels))))
        except SampleError as problem:
            return (), SampleError(problem.status, f"{origin}: {problem}")
        if text is not None:
            self._known[text] = found
        return found, None

    def read_all(self, several: Iterable[object], origin: str) -> Labels:
        """Read the labels that several places give one image: their union, or the first failure."""
        union: set[int] = set()
        for labels in several:
            classes, problem = self.read(labels, origin)
            if problem is not None:
                return (), problem
            union.update(classes)
        return tuple(sorted(union)), None

    def _split(self, labels: object) -> list[object]:
        """The labels one by one."""
        if isinstance(labels, (np.ndarray, np.generic)):
            labels = labels.tolist()
        if labels is None or (isinstance(labels, float) and math.isnan(labels)):
            return []
        if isinstance(labels, str):
            return self._split_text(labels.strip())
        if not isinstance(labels, (list, tuple)):
            return [labels]
        return [label.tolist() if isinstance(label, np.generic) else label for label in labels]

    def _split_text(self, text: str) -> list[object]:
        if self._vocabulary.find(text) is not None:  # a name may hold brackets and commas
            return [text]
        if text and _BRACKETS.get(text[0]) == text[-1]:
            return _parse_list(text)
        if _NUMBERS_WITH_BLANKS.fullmatch(text):
            return [*text.split()]
        return [part for part in _SEPARATORS.split(text) if part.strip()]

    def _classes(self, labels: list[object]) -> set[int]:
        numbers = [self._as_number(label) for label in labels]
        known = [number for number in numbers if number is not None]
        if len(known) == len(labels):
            return self._classes_of_numbers(known)
        indices = {self._index(number) for number in known}
        return indices | {self._name(label) for label, number in zip(labels, numbers, strict=True) if number is None}

    def _as_number(self, label: object) -> float | None:
        """The label where it is an integer, a boolean, or a whole number as a float or as text; else None."""
        if isinstance(label, float) and not label.is_integer():
            raise SampleError(
                UNCLEAR_LABELS,
                f"label {label!r} is neither a class name nor an index, and a one-hot vector holds only 0 and 1; "
                "scores have to be cut at a threshold first",
            )
        if isinstance(label, (int, float)):
            return label
        if isinstance(label, str) and _NUMBER.fullmatch(label.strip()) and self._vocabulary.find(label) is None:
            return int(label.strip().partition(".")[0])
        return None

    def _classes_of_numbers(self, numbers: list[float]) -> set[int]:
        classes, shown = len(self._vocabulary), _show(numbers)
        vocabulary = f"vocabulary '{self._vocabulary.name}' without background"
        repeated = next((number for number in numbers if numbers.count(number) > 1), None)
        is_vector = len(numbers) == classes and {*numbers} <= {0, 1}
        if any(isinstance(number, bool) for number in numbers):
            if not is_vector or not all(isinstance(number, bool) for number in numbers):
                raise SampleError(
                    UNCLEAR_LABELS,
                    f"{shown} is neither a class name, an index, nor a vector of true and false for each of the "
                    f"{classes} classes of {vocabulary}",
                )
        elif is_vector and repeated is None and 0 in numbers:  # [0], [0, 1] or [1, 0]
            raise SampleError(
                UNCLEAR_LABELS,
                f"{shown} can be meant as indices or as a one-hot vector of the {classes} classes of {vocabulary}; "
                "write names ([] for none), or true and false for a vector",
            )
        if is_vector:
            return {place for place, number in enumerate(numbers, 1) if number}
        if repeated is not None:
            raise SampleError(
                UNCLEAR_LABELS,
                f"{repeated:g} comes {numbers.count(repeated)} times in the labels {shown}; a list of indices names "
                f"each class once, and a one-hot vector has {classes} values, one for each class of {vocabulary}",
            )
        return {self._index(number) for number in numbers}

    def _name(self, label: object) -> int:
        """Vocabulary index of a name; remembered, since a million rows repeat few names."""
        if not isinstance(label, str):
            raise SampleError(UNCLEAR_LABELS, f"label {label!r:.80} is neither a class name nor an index")
        if label not in self._names:
            try:
                self._names[label] = self._vocabulary.index(label.strip())
            except VocabularyError as error:
                self._names[label] = str(error)
        found = self._names[label]
        if isinstance(found, str):
            raise SampleError(UNKNOWN_CLASS, found)
        return found

    def _index(self, label: float) -> int:
        """Vocabulary index of a 0-based one."""
        if isinstance(label, bool):
            raise SampleError(UNCLEAR_LABELS, f"label {label!r} is neither a class name nor an index")
        if not 0 <= label < len(self._vocabulary):
            raise SampleError(
                UNKNOWN_CLASS,
                f"label index {label:g} is outside 0..{len(self._vocabulary) - 1} of vocabulary "
                f"'{self._vocabulary.name}' (indices start at 0 and leave background out)",
            )
        return int(label) + 1


def _text(labels: object) -> object:
    """What labels of text can be looked up by, since a million rows repeat few combinations; None for others."""
    if isinstance(labels, str):
        return labels
    return tuple(labels) if isinstance(labels, list) and {*map(type, labels)} <= {str} else None


def _parse_list(text: str) -> list[object]:
    """A list that was written as text: JSON's, Python's, NumPy's, or names in brackets."""
    if _LIST_WITHOUT_COMMAS.fullmatch(text):  # Python would join its texts to one
        return [_BOOLEANS.get(item, _unquote(item)) for item in re.findall(_ITEM, text[1:-1])]
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return list(found) if isinstance(found, (list, tuple, set)) else [found]
    return [_unquote(part.strip()) for part in _SEPARATORS.split(text[1:-1]) if part.strip()]


def _unquote(item: str) -> str:
    return item[1:-1] if len(item) > 1 and item[0] == item[-1] and item[0] in _QUOTES else item


def _show(numbers: list[float]) -> str:
    shown = json.dumps(numbers)
    return shown if len(shown) <= 60 else f"{shown[:56]}...]"
