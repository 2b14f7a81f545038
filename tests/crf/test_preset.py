"""The CRF presets, as `--crf NAME` takes them."""

import pytest

from pseudolabel.cli import _resolve_shipped, build_parser
from pseudolabel.config import CrfConfig
from pseudolabel.errors import SettingError


def crf_of(*arguments: str) -> CrfConfig:
    parser = build_parser()
    parsed = parser.parse_args(_resolve_shipped(["refine", *arguments]))
    return parser.instantiate(parsed).refine.crf


def test_clip_es_is_the_default() -> None:
    assert crf_of("--crf", "clip-es") == crf_of() == CrfConfig()


def test_none_takes_no_mean_field_step() -> None:
    assert crf_of("--crf", "none").iterations == 0


def test_a_later_option_overrides_the_preset() -> None:
    assert crf_of("--crf", "none", "--crf.iterations", "3").iterations == 3


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(SettingError, match=r"`crf` no-such-preset: .*those that ship are clip-es, none"):
        crf_of("--crf", "no-such-preset")
