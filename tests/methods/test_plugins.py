"""Users' files that register methods."""

from hashlib import sha256
from pathlib import Path

import pytest

from pseudolabel.errors import SettingError
from pseudolabel.methods.plugins import load_plugins
from pseudolabel.methods.registry import find_method

OWN = """
from dataclasses import dataclass
import pseudolabel as pl

@dataclass(frozen=True)
class Settings:
    epochs: int = 6

pl.register_method(pl.Method("{name}", lambda context, settings: None, Settings, lambda _: "masks"))
"""


pytestmark = pytest.mark.usefixtures("methods_restored")


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_file_registers_its_method_once(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.py", OWN.format(name="mine"))
    load_plugins([file])
    method = find_method("mine")
    assert method.source == sha256(Path(file).read_bytes()).hexdigest()
    assert method.settings().epochs == 6
    load_plugins([file, file])
    assert find_method("mine") is method


def test_a_changed_file_is_run_again_and_so_is_the_restored_one(tmp_path: Path) -> None:
    first, second = OWN.format(name="mine"), OWN.format(name="mine").replace("6", "7")
    for text, epochs in ((first, 6), (second, 7), (first, 6)):
        load_plugins([write(tmp_path / "mine.py", text)])
        assert find_method("mine").settings().epochs == epochs
        assert find_method("mine").source == sha256(text.encode()).hexdigest()


def test_a_file_may_register_several_methods(tmp_path: Path) -> None:
    text = OWN.format(name="one") + 'pl.register_method(pl.Method("two", None, Settings, lambda _: "masks"))'
    load_plugins([write(tmp_path / "both.py", text)])
    assert find_method("one").source == find_method("two").source != ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "registers no method; call pseudolabel.register_method"),
        ("x = 1\n1 / 0", "mine.py, line 2 cannot be run: ZeroDivisionError: division by zero"),
        ("def", "cannot be run: SyntaxError"),
        ("import nothing_of_this_name", "cannot be run: ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        (OWN.format(name="elbo"), "a method 'elbo' is registered already"),
        (OWN.format(name="source"), "a method cannot be named 'source'"),
    ],
)
def test_an_invalid_file(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path / "mine.py", text)
    for _ in range(2):  # it is not taken for one that has run
        with pytest.raises(SettingError, match=message) as caught:
            load_plugins([file])
    assert "registered already" in message or "named" in message or f"`plugins` {file}" in str(caught.value)


def test_a_missing_file() -> None:
    with pytest.raises(SettingError, match=r"`plugins` nowhere.py: no such file"):
        load_plugins(["nowhere.py"])
