"""Users' own files that register methods."""

import hashlib
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from pseudolabel.errors import SettingError
from pseudolabel.methods.plugin_errors import describe, line_in
from pseudolabel.methods.registry import METHODS, register


def load_plugins(paths: Iterable[str]) -> None:
    """Run Python files that call `register`; one whose methods are registered already is not run again.

    Their methods get a digest of the file, so that a run is not resumed with other code.

    Raises:
        SettingError: if a file is missing, cannot be run, or registers no method.
    """
    for path in paths:
        _load(Path(path).expanduser().resolve(), path)


def _load(file: Path, given: str) -> None:
    if not file.is_file():
        raise SettingError(f"`plugins` {given}: no such file")
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    name = f"pseudolabel_plugin_{hashlib.sha256(str(file).encode() + content).hexdigest()[:12]}"
    if name in sys.modules and any(method.source == digest for method in METHODS.values()):
        return
    before = dict(METHODS)
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        # Not an import: Python's cached bytecode may be older than a file that was changed within a second.
        exec(compile(content, file, "exec"), module.__dict__)
    except Exception as error:  # the user's program may raise anything
        del sys.modules[name]
        if isinstance(error, SettingError):
            raise
        raise SettingError(f"`plugins` {given}{line_in(str(file), error)} cannot be run: {describe(error)}") from error
    new = [method for key, method in METHODS.items() if before.get(key) is not method]
    if not new:
        del sys.modules[name]
        raise SettingError(f"`plugins` {given} registers no method; call pseudolabel.register_method(...) in it")
    for method in new:
        register(replace(method, source=digest, file=str(file)))
