"""The CRF presets, as `--crf NAME` takes them."""

import pytest

from pseudolabel.cli import COMMANDS
from pseudolabel.command_line import parse
from pseudolabel.config import CrfConfig


def crf_of(*arguments: str) -> CrfConfig:
    return parse(COMMANDS, ["refine", *arguments])[1].crf


def test_clip_es_is_the_default() -> None:
    assert crf_of("--crf", "clip-es") == crf_of() == CrfConfig()


def test_preset_none_has_no_iterations() -> None:
    assert crf_of("--crf", "none").iterations == 0


def test_a_later_option_overrides_the_preset() -> None:
    assert crf_of("--crf", "none", "--crf.iterations", "3").iterations == 3


def test_an_unknown_preset_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        crf_of("--crf", "no-such-preset")
    assert "--crf no-such-preset: no such file, and none of that name ships; those that ship are clip-es, none" in (
        capsys.readouterr().err
    )
