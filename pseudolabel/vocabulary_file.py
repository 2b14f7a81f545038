"""Parsing and validation of vocabulary files."""

import json
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

import yaml

_FIELDS = ("name", "classes", "template", "background", "background_words")
_ENTRY_FIELDS = ("name", "prompt", "synonyms")
_EXAMPLE = "write a list of names, such as classes: [dog, red car]"
_YAML_SUFFIXES = (".yaml", ".yml", ".json")
_YAML_LINE = re.compile(r"(classes|names)\s*:")
_NUMBERED_LINE = re.compile(r"(\d+)\s*[:,;\s]\s*\S")


@dataclass(frozen=True)
class Fields:
    """The contents of a vocabulary file, with checked types.

    Attributes:
        classes: name, prompt name and synonyms of each class, in the order of their indices.
        others: the other arguments of `Vocabulary` that the file has.
    """

    classes: list[tuple[str, str, tuple[str, ...]]]
    others: dict[str, Any]


def parse(text: str, path: str) -> Fields:
    """Parse a vocabulary file.

    A YAML or JSON file holds `classes`, a list of names or of `{name, prompt, synonyms}`, and optionally `name`,
    `template`, `background` and `background_words`; or a bare list; or a dict of index to name; or, as YOLO's data
    files do, `names`. Any other text file holds one class per line.

    Args:
        text: of the file.
        path: of the file; its suffix decides the format.

    Raises:
        ValueError: if the text has another form; the message says what to write.
    """
    if not path.lower().endswith(_YAML_SUFFIXES):
        return _build({"classes": _lines(text)})
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {error}") from error
    return _build(_fields_of(data))


def _lines(text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if any(_YAML_LINE.match(line) for line in lines):
        raise ValueError("this looks like YAML; give it a name that ends in .yaml")
    if len(lines) == 1 and "," in lines[0]:
        raise ValueError("all classes are in one line; write one class per line")
    numbered = [_NUMBERED_LINE.match(line) for line in lines]
    numbers = [int(found[1]) for found in numbered if found]
    if len(lines) > 1 and numbers in (list(range(len(lines))), list(range(1, len(lines) + 1))):
        raise ValueError(f"the lines begin with numbers, such as '{lines[0]}'; write only the names")
    return lines


def _fields_of(data: object) -> dict[str, Any]:
    """A vocabulary's fields, from any of the file's forms."""
    if isinstance(data, list):
        return {"classes": data}
    if not isinstance(data, dict):
        raise ValueError(f"the file holds {_describe(data)} and no classes; {_EXAMPLE}")
    if "classes" in data:
        unknown = [str(field) for field in data if field not in _FIELDS]
        if unknown:
            raise ValueError(f"unknown field '{unknown[0]}'; a vocabulary has {', '.join(_FIELDS)}")
        return data
    if "names" in data:
        count = data.get("nc")
        if isinstance(data["names"], (list, dict)) and count not in (None, len(data["names"])):
            raise ValueError(f"nc is {count}, but names holds {len(data['names'])} classes")
        return {"classes": data["names"], **{field: data[field] for field in _FIELDS if field in data}}
    if data and all(_is_index(key) for key in data):
        return {"classes": data}
    found = ", ".join(map(str, data)) or "nothing"
    raise ValueError(f"no classes in it; found {found:.200}; {_EXAMPLE}")


def _build(fields: dict[str, Any]) -> Fields:
    others: dict[str, Any] = {}
    if "name" in fields:
        others["name"] = read_text(fields["name"], "the vocabulary's name")
    if "background_words" in fields:
        words = enumerate(_list(fields["background_words"], "background_words"), 1)
        others["background_words"] = tuple(read_text(word, f"background word {number}") for number, word in words)
    if "template" in fields:
        others["template"] = fields["template"]
    if "background" in fields:
        others["has_background"] = fields["background"]
    return Fields([_entry(entry, number) for number, entry in enumerate(_in_order(fields["classes"]), 1)], others)


def _in_order(classes: object) -> list[Any]:
    """The classes of a list, or of a dict from index to name, in the order of their indices."""
    if not isinstance(classes, dict):
        return _list(classes, "classes")
    if not all(_is_index(key) for key in classes):
        raise ValueError("classes is a dict whose keys are not indices; write index: name, or a list of names")
    by_index = {int(key): entry for key, entry in classes.items()}
    first = min(by_index, default=0)
    if first > 1 or sorted(by_index) != list(range(first, first + len(classes))):
        raise ValueError(f"the classes' indices {sorted(by_index)!s:.80} are not consecutive from 0 or 1; {_EXAMPLE}")
    return [by_index[index] for index in sorted(by_index)]


def _is_index(key: object) -> bool:
    is_number = isinstance(key, int) and not isinstance(key, bool)
    return is_number or (isinstance(key, str) and bool(re.fullmatch(r"[0-9]{1,4}", key)))


def _entry(entry: object, number: int) -> tuple[str, str, tuple[str, ...]]:
    what = f"class {number}"
    if not isinstance(entry, dict):
        name = read_text(entry, what)
        return name, name, ()
    unknown = [str(field) for field in entry if field not in _ENTRY_FIELDS]
    if unknown:
        raise ValueError(f"{what}: unknown field '{unknown[0]}'; a class has {', '.join(_ENTRY_FIELDS)}")
    if "name" not in entry:
        raise ValueError(f"{what}: no name; write {{name: dog, prompt: dog, synonyms: [puppy]}}")
    name = read_text(entry["name"], what)
    synonyms = _list(entry.get("synonyms", []), f"synonyms of '{name}'")
    return (
        name,
        read_text(entry.get("prompt", name), f"prompt of '{name}'"),
        tuple(read_text(synonym, f"a synonym of '{name}'") for synonym in synonyms),
    )


def _list(value: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{what} is {_describe(value)}; write a list, such as [dog, red car]")
    return value


def read_text(value: object, what: str) -> str:
    """A name in NFC, without surrounding whitespace.

    Raises:
        ValueError: if the value is not text or holds line breaks; the message calls it `what`.
    """
    if not isinstance(value, str):
        hint = "write a name"
        if isinstance(value, (bool, int, float)):
            hint = f'put it in quotes if it is a name: "{json.dumps(value)}"'
        if isinstance(value, bool):
            hint = "YAML reads yes, no, on and off as true and false, so put the name in quotes"
        raise ValueError(f"{what} is {_describe(value)}; {hint}")
    text = unicodedata.normalize("NFC", value).strip()
    if any(unicodedata.category(letter) == "Cc" for letter in text):
        raise ValueError(f"{what}, {text!r:.80}, holds a line break or another control character; leave it out")
    return text


def _describe(value: object) -> str:
    if value is None:
        return "empty (null)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text '{value:.80}'"
    return f"a {type(value).__name__}"
