"""CRF presets."""

import pytest

from pseudolabel.config import CrfConfig
from pseudolabel.refine.preset import CrfPresetError, load_crf_preset


def test_clip_es_is_the_default():
    assert load_crf_preset("clip-es") == CrfConfig()


def test_none_runs_no_crf_and_keeps_every_pixel():
    preset = load_crf_preset("none")
    assert (preset.iterations, preset.background, preset.ignore_below) == (0, "threshold", 0)


def test_unknown_preset_names_the_known_ones():
    with pytest.raises(CrfPresetError, match="'clipes'; there are clip-es, none"):
        load_crf_preset("clipes")
