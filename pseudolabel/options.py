"""A command's parser: the settings that it reads, its own arguments, and a short and a complete help."""

import argparse
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import metadata
from typing import Any, NoReturn

import docstring_parser
from jsonargparse import DefaultHelpFormatter

from pseudolabel.config import SECTIONS
from pseudolabel.methods.registry import METHODS
from pseudolabel.runtime.terminal import with_options
from pseudolabel.settings_parser import RENAMED, SettingsParser, explain, unknown_setting

COMMON = (
    "out",
    "vocabulary",
    "source.kind",
    "source.path",
    "source.split",
    "source.labels",
    "model.name",
    "method",
    "captions.source",
    "work.batch",
    "crf",
    "evaluate.threshold",
)
"""The settings that the short help shows, where the command reads them."""

METHODS_HELP = "With --method NAME or --plugins FILE, --help also shows the options of those methods."

_REQUIRED = "the following arguments are required: "


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        run: runs the command and returns the exit status; its parameters are the command's arguments and its docstring
            their help. `experiment` is built from the settings, and `rank` is this process's.
        reads: the settings and sections of the experiment that it reads, such as `out`, `source` or
            `source.max_pixels`; `method` includes the sections of all methods.
        is_single_process: whether rank 0 runs the command and all others end.
        interrupted: what is printed when it is interrupted.
    """

    run: Callable[..., int]
    reads: tuple[str, ...] = ()
    is_single_process: bool = False
    interrupted: str = "nothing was written; run it again"

    def takes(self, setting: str) -> bool:
        """Whether it reads a setting, such as `source.path`."""
        section = setting.partition(".")[0]
        of_method = section == "plugins" or section in METHODS
        return setting in self.reads or section in self.reads or (of_method and "method" in self.reads)

    @property
    def help(self) -> str:
        return inspect.getdoc(self.run) or ""


class _Help(DefaultHelpFormatter):
    """Help without Python's types; choices and defaults show what a setting takes."""

    def _get_type_str(self, action: argparse.Action) -> str | None:
        return None

    def _get_help_string(self, action: argparse.Action) -> str:
        text = super()._get_help_string(action)
        is_empty = action.default in (None, "", [])
        return text.removesuffix(" (default: %(default)s)") if is_empty else text

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n\n".join(fill(paragraph, width, indent) for paragraph in text.split("\n\n"))


class _HelpAll(argparse.Action):
    """Print the help of all options and end."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        assert isinstance(parser, CommandParser)
        parser.rare.clear()
        parser.print_help()
        parser.exit()


class _Unread(argparse.Action):
    """End with a message, for the option of a setting that the command does not read."""

    def __call__(self, parser: argparse.ArgumentParser, _: Any, __: Any, option_string: str | None = None) -> None:
        assert isinstance(parser, CommandParser)
        parser.error(f"{option_string}: this command does not read it; it reads {', '.join(parser.reads)}")


class CommandParser(SettingsParser):
    """The parser of one command, or of all as its subcommands; messages name options.

    Attributes:
        reads: what the command reads of an experiment.
        commands: the parsers of subcommands, by name.
        unread: the actions of settings that the command does not read; only experiment files may hold them.
        rare: the actions that only the complete help shows.
    """

    def __init__(self, reads: tuple[str, ...] = (), **options: Any) -> None:
        super().__init__(formatter_class=_Help, allow_abbrev=False, **options)
        self.reads = reads
        self.commands: dict[str, CommandParser] = {}
        self.unread: list[argparse.Action] = []
        self.rare: list[argparse.Action] = []

    def options(self) -> dict[str, str]:
        """The option of each setting and argument, such as `--out`; `KIND` for a positional one."""
        return {action.dest: (action.option_strings or [action.dest.upper()])[0] for action in self._actions}

    def format_help(self, *arguments: Any) -> str:
        """The help of the common options, or of all that are read."""
        hidden = {action: action.help for action in [*self.unread, *self.rare]}
        for action in hidden:
            action.help = argparse.SUPPRESS  # only for now: jsonargparse would leave them out of printed settings, too
        text = super().format_help(*arguments)
        for action, own in hidden.items():
            action.help = own
        return text

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End with the message and status 2; an unknown option is answered with the one that was meant."""
        parser = getattr(ex, "subcommand_parser", None) or self
        if message.startswith(_REQUIRED):
            names = [name.rpartition(".") for name in message.removeprefix(_REQUIRED).split(", ")]
            parser = self.commands[names[0][0]]
            message = f"missing: {', '.join(f'`{name}`' for _, _, name in names)}"
        if parser is not self:
            parser.error(message, ex)
        options = {name: f"--{name}" for name in RENAMED} | self.options()
        super().error(with_options(_explain(message, self), options), ex)


def _explain(message: str, parser: CommandParser) -> str:
    if found := re.match(r"unrecognized arguments: (--?([^\s=]+))", message):
        option, name = found.groups()
        near = get_close_matches(option, parser._option_string_actions, 1)
        if name in RENAMED or not near:
            return unknown_setting(name, parser) if name in RENAMED else message
        return f"{message}; did you mean {near[0]}?"
    if found := re.match(r"argument COMMAND: invalid choice: '(.*?)'", message):
        near = get_close_matches(found[1], parser.commands, 1)
        return f"no command '{found[1]}'; " + (f"did you mean '{near[0]}'?" if near else "see pseudolabel --help")
    return explain(message, parser)


def command_parser(name: str, command: Command, methods: Sequence[str] = ()) -> CommandParser:
    """The parser of a command, whose short help also shows the options of these methods."""
    epilog = METHODS_HELP if command.takes("method") else None
    parser = CommandParser(command.reads, description=command.help.split("\n\nArgs")[0], epilog=epilog)
    if command.reads:
        parser.add_argument(
            "--config",
            action="config",
            help="experiment file (YAML), or the name of one that ships, such as shapes; later options override it. It "
            "may also hold settings that this command does not read.",
        )
        parser.add_settings()
    documented = {param.arg_name: param.description for param in docstring_parser.parse(command.help).params}
    for parameter in inspect.signature(command.run).parameters.values():
        if parameter.name not in ("experiment", "rank"):
            _add_argument(parser, parameter, documented.get(parameter.name))
    parser.add_argument("--verbose", action="store_true", default=argparse.SUPPRESS, help="log details and tracebacks")
    parser.add_argument(
        "--quiet",
        action="store_true",
        default=argparse.SUPPRESS,
        help="no progress and no notes: only results, warnings and errors",
    )
    _hide(parser, command, methods)
    required = [action for action in parser._actions if action.required]
    words = [" ".join([*action.option_strings[:1], action.dest.upper()]) for action in required]
    parser.usage = " ".join(["pseudolabel", name, *words, "[--OPTION VALUE ...]"])
    return parser


def _hide(parser: CommandParser, command: Command, methods: Sequence[str]) -> None:
    """Leave settings that the command does not read to experiment files, and rare ones to the complete help."""
    for action in list(parser._actions) if command.reads else ():
        section = action.dest.partition(".")[0]
        is_setting = section in SECTIONS or section in METHODS
        if is_setting and not command.takes(action.dest):
            unread = _Unread(action.option_strings, argparse.SUPPRESS, nargs="*")
            parser._option_string_actions |= dict.fromkeys(action.option_strings, unread)
            parser.unread.append(action)
        elif (is_setting and section not in methods and action.dest not in COMMON) or action.dest == "print_config":
            parser.rare.append(action)
    if parser.rare:
        parser.add_argument(
            "--help-all", action=_HelpAll, nargs=0, default=argparse.SUPPRESS, help="Show every option and exit."
        )


def _add_argument(parser: CommandParser, parameter: inspect.Parameter, text: str | None) -> None:
    """An argument for a function's parameter: a required one is positional, or an option if it is keyword-only."""
    is_required, kind = parameter.default is parameter.empty, parameter.annotation
    option = f"--{parameter.name.replace('_', '-')}"
    if is_required and parameter.kind is not parameter.KEYWORD_ONLY:
        several = {"nargs": "+"} if kind == list[str] else {"type": kind}
        parser.add_argument(parameter.name, help=text, **several)
    elif is_required:
        parser.add_argument(option, type=kind, required=True, help=text)
    elif kind is bool:
        parser.add_argument(option, action="store_true", default=argparse.SUPPRESS, help=text)
    elif kind == list[str]:
        parser.add_argument(option, nargs="+", default=[], help=text)
    else:
        parser.add_argument(option, type=kind, default=parameter.default, help=text)


def build_parser(commands: Mapping[str, Command], chosen: str, methods: Sequence[str] = ()) -> CommandParser:
    """The parser of all commands, complete for the chosen one, whose short help shows options of these methods."""
    parser = CommandParser(
        prog="pseudolabel",
        version=_version(),
        description="From images with image-level labels to pixel-level pseudo-masks with a frozen diffusion model.",
        epilog="Begin with 'pseudolabel doctor'; 'pseudolabel COMMAND --help' explains the common options and "
        "'pseudolabel COMMAND --help-all' every one.",
    )
    # Without a command it is the general help, which says what to ask for.
    parser.add_argument("--help-all", action=_HelpAll, nargs=0, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    added = parser.add_subcommands(dest="command", metavar="COMMAND")
    for name, command in commands.items():
        parser.commands[name] = command_parser(name, command, methods) if name == chosen else CommandParser()
        added.add_subcommand(name, parser.commands[name], help=command.help.split("\n")[0])
    return parser


def _version() -> str:
    try:
        return metadata.version("pseudolabel")
    except metadata.PackageNotFoundError:
        return "of a copy that is not installed"
