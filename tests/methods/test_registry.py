"""The registry of methods: what can be registered, and what is found."""

from dataclasses import dataclass, replace
from typing import Any

import pytest

from pseudolabel.config import DiffSegConfig, DiffSegmenterConfig, Experiment
from pseudolabel.errors import SettingError
from pseudolabel.methods.registry import METHODS, Method, find_method, register
from pseudolabel.stages.method import chosen_method, produced_kind


@dataclass(frozen=True)
class OwnConfig:
    """Args: epochs: passes."""

    epochs: int = 6


def own(name: str, settings: type[Any] = OwnConfig) -> Method:
    return Method(name, lambda context, settings: None, settings, lambda _: "segments")  # type: ignore[arg-type]


pytestmark = pytest.mark.usefixtures("methods_restored")


def test_the_methods_of_the_package() -> None:
    assert list(METHODS)[:4] == ["diffsegmenter", "elbo", "diffseg", "freesegdiff"]
    kinds = [produced_kind(Experiment(method=name)) for name in list(METHODS)[:4]]
    assert kinds == ["cams", "cams", "segments", "masks"]
    named = Experiment(method="diffseg", diffseg=DiffSegConfig(semantic=True))
    assert produced_kind(named) == "masks"
    assert find_method("diffseg").takes_unlabelled(DiffSegConfig())
    assert not find_method("diffseg").takes_unlabelled(named.diffseg)
    assert not find_method("diffsegmenter").takes_unlabelled(DiffSegmenterConfig())


def test_a_users_method_is_chosen_with_its_settings() -> None:
    method = register(own("cam"))
    assert find_method("cam") is method
    assert chosen_method(Experiment(method="cam")) == (method, OwnConfig())
    settings = OwnConfig(epochs=2)
    assert chosen_method(Experiment(method="cam", own_settings={"cam": settings})) == (method, settings)
    again = register(replace(method, needs_model=False))  # a notebook's cell that is run again
    assert find_method("cam") is again


def test_a_duplicate_name() -> None:
    register(own("cam"))
    with pytest.raises(SettingError, match="a method 'cam' is registered already; give yours another name"):
        register(own("cam", DiffSegConfig))
    with pytest.raises(SettingError, match="a method 'elbo' is registered already"):
        register(own("elbo"))


@pytest.mark.parametrize("name", ["source", "out", "my method", "2nd", ""])
def test_an_invalid_section_name(name: str) -> None:
    with pytest.raises(SettingError, match=f"a method cannot be named '{name}'"):
        register(own(name))
    assert name not in METHODS


@dataclass(frozen=True)
class NoDefault:
    """Settings of which one must be given."""

    epochs: int


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (NoDefault, "method 'cam': setting `epochs` has no default; give it one"),
        (dict, "method 'cam': its `settings` <class 'dict'> is no dataclass"),
        (None, "method 'cam': its `settings` None is no dataclass"),
        (OwnConfig(), r"method 'cam': its `settings` OwnConfig\(epochs=6\) is no dataclass; give the class itself"),
    ],
)
def test_settings_are_a_dataclass_with_defaults(settings: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        register(own("cam", settings))


def test_an_unknown_method() -> None:
    with pytest.raises(
        SettingError, match=r"`method` difseg: no such method; did you mean 'diffseg'\? Otherwise name its"
    ):
        find_method("difseg")
    with pytest.raises(
        SettingError, match=r"those here are diffsegmenter, .*\. Otherwise name its file with `plugins`"
    ):
        find_method("xyz")
