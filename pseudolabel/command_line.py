"""Runs a command of the command line: parses it, gives it its experiment and rank, and explains errors."""

import argparse
import inspect
import logging
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from io import TextIOWrapper
from typing import Protocol

from jsonargparse import Namespace

from pseudolabel.errors import SettingError, UserError
from pseudolabel.experiment_file import check_shipped, named_plugins, resolve_shipped
from pseudolabel.methods.plugins import load_plugins
from pseudolabel.options import Command, build_parser
from pseudolabel.runtime.cores import sleep_while_waiting
from pseudolabel.runtime.interrupt import end_on_interrupt
from pseudolabel.runtime.single_process import leave_to_first_rank
from pseudolabel.runtime.terminal import Terminal
from pseudolabel.runtime.watchdog import end_with_launcher
from pseudolabel.settings_parser import instantiate, own_methods, read_experiment, without_settings

TRAINING_PACKAGES = ("mmcv", "mmengine", "mmseg")  # they come with the extra `train`

log = logging.getLogger(__name__)
terminal = Terminal()


class Ended(Protocol):
    """The result of a command."""

    @property
    def exit_status(self) -> int:
        """Of the command."""

    def lines(self) -> list[str]:
        """The result, for standard output."""

    def notes(self) -> list[str]:
        """What there is to say about it, for standard error."""


def report(ended: Ended | None) -> int:
    """Print the result of a command, unless another process does, and return the exit status."""
    if ended is None:
        return 0
    show(ended.lines(), ended.notes(), ended.exit_status)
    return ended.exit_status


def show(lines: Sequence[str], notes: Sequence[str], exit_status: int) -> None:
    """Print the result to standard output, and notes, which are warnings if it is a failure, to standard error."""
    for line in lines:
        terminal.print(line)
    sys.stdout.flush()
    for note in notes:
        log.log(logging.WARNING if exit_status else logging.INFO, "%s", note)


def run_command(commands: Mapping[str, Command], arguments: list[str] | None) -> int:
    """Run a command; errors that the user can fix end in one message and their status, not in a traceback.

    Args:
        commands: by name.
        arguments: of the command line; None for this process's, which an interrupt then ends.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # never fail on a name that the terminal cannot show
    sleep_while_waiting()
    end_with_launcher()
    with end_on_interrupt("pseudolabel: interrupted") if arguments is None else nullcontext():
        name, values = parse(commands, sys.argv[1:] if arguments is None else arguments)
    message = f"pseudolabel {name}: interrupted; {commands[name].interrupted}"
    level = logging.DEBUG if values.pop("verbose", False) else logging.INFO
    level = logging.WARNING if values.pop("quiet", False) else level
    with end_on_interrupt(message) if arguments is None else nullcontext(), terminal.shows(level):
        return _run(name, commands[name], values)


def parse(commands: Mapping[str, Command], arguments: list[str]) -> tuple[str, Namespace]:
    """The command and the values of its options; a bad command line ends the process with status 2."""
    name = next((argument for argument in arguments if not argument.startswith("-")), "")
    try:
        resolved = _resolve_shipped(arguments)
        load_plugins(_named_plugins(resolved))
        parser = build_parser(commands, name, _named_methods(resolved))
        values = instantiate(parser, parser.parse_args(resolved))[name]
    except SettingError as error:
        if "--verbose" in arguments:
            traceback.print_exc()
        parser = build_parser(commands, name)
        parser.commands.get(name, parser).error(str(error))
    # `failures` repeats messages of commands that take these settings.
    named = build_parser(commands, "generate").commands["generate"] if name == "failures" else parser.commands[name]
    terminal.options = named.options()
    return name, values


def _run(name: str, command: Command, values: Namespace) -> int:
    if command.is_single_process and leave_to_first_rank(name):
        return 0
    try:
        arguments = dict(values)
        if command.reads:
            arguments = {"experiment": read_experiment(values), **without_settings(values)}
            log.debug("%s", arguments["experiment"])
        if "rank" in inspect.signature(command.run).parameters:
            from pseudolabel.runtime.rank import current_rank

            arguments["rank"] = rank = current_rank()
            log.debug("process %d of %d on %s", rank.index + 1, rank.count, rank.device)
        return command.run(**arguments)
    except UserError as error:
        terminal.print_error(f"pseudolabel {name}: {error}")
        log.debug("it was raised here:", exc_info=True)
        return error.exit_status
    except ModuleNotFoundError as error:
        if error.name not in TRAINING_PACKAGES:
            raise
        terminal.print_error(f"pseudolabel {name}: {error}; say: pip install 'pseudolabel[train]'")
        return 1
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _named_plugins(arguments: list[str]) -> list[str]:
    """The files after `--plugins` and in experiment files, which are run before the options are known."""
    known = _parse_known(arguments)
    return [plugin for config in known.config for plugin in named_plugins(config)] + known.plugins


def _named_methods(arguments: list[str]) -> list[str]:
    """The method after `--method`, and those of plugins."""
    return [*_parse_known(arguments).method, *own_methods()]


def _parse_known(arguments: list[str]) -> argparse.Namespace:
    """The options that are read before the others are known; the complete parser reports those without a value."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--plugins", nargs="*", default=[], action="extend")
    for name in ("config", "method"):
        parser.add_argument(f"--{name}", nargs="?", const="", default=[], action="append")
    return parser.parse_known_args(arguments)[0]


def _resolve_shipped(arguments: list[str]) -> list[str]:
    """Replace shipped names in `--config NAME`, `--crf=NAME` and so on by paths, unless such a file exists here."""
    resolved = list(arguments)
    for place, (argument, before) in enumerate(zip(arguments, ["", *arguments], strict=False)):
        option, joined, value = argument.partition("=")
        option, value = (option, value) if joined else (before, argument)
        setting = option.removeprefix("--") if option.startswith("--") else ""
        check_shipped(setting, value)
        resolved[place] = f"{option}={resolve_shipped(setting, value)}" if joined else resolve_shipped(setting, value)
    return resolved
