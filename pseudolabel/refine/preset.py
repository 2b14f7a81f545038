"""CRF presets by name; each is one file in `presets/`."""

from importlib import resources
from pathlib import Path

import yaml

from pseudolabel.config import CrfConfig
from pseudolabel.errors import UserError


class CrfPresetError(UserError, ValueError):
    """There is no such preset, or its file does not describe one."""


def load_crf_preset(name: str) -> CrfConfig:
    """Load a preset, such as `clip-es` (CLIP-ES's parameters for VOC) or `none` (no CRF).

    Raises:
        CrfPresetError: if there is no such preset, or its file does not fit `CrfConfig`.
    """
    files = {Path(entry.name).stem: entry for entry in (resources.files(__package__) / "presets").iterdir()}
    if name not in files:
        raise CrfPresetError(f"no CRF preset '{name}'; there are {', '.join(sorted(files))}")
    try:
        return CrfConfig(**yaml.safe_load(files[name].read_text(encoding="utf-8")))
    except (yaml.YAMLError, TypeError) as error:
        raise CrfPresetError(f"CRF preset '{name}' does not fit CrfConfig: {error}") from error
