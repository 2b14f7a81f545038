"""The parser of an experiment's settings, in files and as options; its errors name the setting and what it takes."""

import re
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NoReturn, get_args, get_origin

from jsonargparse import ArgumentParser, Namespace

from pseudolabel.config import SECTIONS, Experiment
from pseudolabel.errors import SettingError
from pseudolabel.methods.plugin_errors import describe, line_in
from pseudolabel.methods.registry import METHODS

PLUGINS_HELP = "Python files of your own that register methods; docs/examples/own_method.py is one."

RENAMED = {
    "freesegdiff.factors": "freesegdiff.strides",
    "diffsegmenter.self_attention_factors": "diffsegmenter.self_attention_strides",
    "filter.leads": "filter.prefixes",
}
"""Settings by the names that earlier versions gave them."""

RENAMED_VALUES = {
    ("diffsegmenter.self_attention", "factors"): "strides",
    ("diffseg.fit", "squash"): "stretch",
}

_WRONG_VALUE = re.compile(
    r'Parser key "([^"]+)":\s+(?:Expected .*Got value|Does not validate .*Given value): (.*)', re.DOTALL
)
_WRONG_KEY = re.compile(r'Parser key "([^"]+)":\s+unsupported operand')  # jsonargparse adds 1 to every key
_NO_CONFIG = re.compile(r'Parser key "([^"]+)":\s+Unable to load config \'?(.*?)\'?\n', re.DOTALL)
_UNKNOWN = re.compile(r"(?:Subcommand '\w+' does not accept option|Option) '([^']+)'")
_UNKNOWN_INSIDE = re.compile(r"Group '([^']+)' does not accept option '([^']+)'")
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
_EXAMPLES = {int: "50, 100", float: "0.5, 1.0"}


class SettingsParser(ArgumentParser):
    """A parser whose errors are short and name settings in backticks."""

    def add_settings(self) -> None:
        """Add every setting of `Experiment`, and those of the methods that plugins registered."""
        self.add_class_arguments(Experiment, as_group=False, sub_configs=True, skip={"own_settings", "plugins"})
        self.add_argument("--plugins", nargs="+", default=[], help=PLUGINS_HELP)
        for method in own_methods():
            self.add_class_arguments(METHODS[method].settings, method)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End with the message, or raise ArgumentError if `exit_on_error` is false."""
        parser = getattr(ex, "subcommand_parser", None) or self
        super().error(explain(message, parser), ex)


def instantiate(parser: ArgumentParser, values: Namespace) -> Namespace:
    """The values with settings as dataclasses.

    Raises:
        SettingError: if the dataclass of a user's method refuses a value.
    """
    try:
        return parser.instantiate(values)
    except Exception as error:  # the user's program may raise anything
        for name in own_methods():
            if METHODS[name].file and (line := line_in(METHODS[name].file, error)):
                raise SettingError(f"`{name}` of '{METHODS[name].file}'{line}: {describe(error)}") from error
        raise


def read_experiment(values: Namespace) -> Experiment:
    """The experiment of instantiated values; other values are ignored."""
    own = {name: values[name] for name in own_methods()}
    return Experiment(**{name: values[name] for name in SECTIONS}, own_settings=own)


def without_settings(values: Namespace) -> dict[str, Any]:
    """The values that are not of an experiment: a command's own."""
    settings = {*SECTIONS, *METHODS, "config"}
    return {name: value for name, value in dict(values).items() if name not in settings}


def own_methods() -> list[str]:
    """The methods whose settings are not a field of `Experiment`."""
    return [name for name in METHODS if name not in SECTIONS]


def explain(message: str, parser: ArgumentParser) -> str:
    """A message of jsonargparse in plain words, with settings in backticks."""
    if found := _WRONG_VALUE.fullmatch(message):
        name, value = found.groups()
        if new := RENAMED_VALUES.get((name, value)):
            return f"`{name}` {value} is now called {new}"
        kind = _kind_of(name, parser)
        return f"`{name}` {value}: give {words_of(kind)}" if kind else message
    if found := _WRONG_KEY.match(message):
        kind = _kind_of(found[1], parser)
        return f"`{found[1]}`: give {words_of(kind)}; a blank follows each colon" if kind else message
    if found := _NO_CONFIG.match(message):
        name, value = found.groups()
        return f"`{name}` {value}: no such file, and not a mapping of settings"
    if found := _UNKNOWN.match(message):
        return unknown_setting(found[1], parser)
    if found := _UNKNOWN_INSIDE.match(message):
        return unknown_setting(".".join(found.groups()), parser)
    return message


def unknown_setting(name: str, parser: ArgumentParser) -> str:
    """The message for a name that no setting of the parser has."""
    if name in RENAMED:
        return f"`{name}` is now called `{RENAMED[name]}`"
    near = get_close_matches(name, [action.dest for action in parser._actions], 1)
    return f"there is no setting `{name}`" + (f"; did you mean `{near[0]}`?" if near else "")


def _kind_of(name: str, parser: ArgumentParser) -> Any:
    """The type of a setting; None for an unknown one."""
    found = (getattr(action, "_typehint", None) or action.type for action in parser._actions if action.dest == name)
    return next(found, None)


def words_of(kind: Any) -> str:
    """A type in plain words, such as `one of a, b` or `a list of numbers`."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}" if len(inner) > 1 else str(inner[0])
    if origin is list:
        return f"a list, such as [{_EXAMPLES.get(inner[0], 'a, b')}]"
    if origin is dict:
        return "a mapping, such as {8: 0.5, 16: 0.5}" if inner[0] is int else "a mapping"
    if inner:  # one of some types, or a type and None
        return ", or ".join(words_of(one) for one in inner if one is not NoneType)
    return _WORDS.get(kind, str(kind))
