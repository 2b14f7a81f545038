"""What the documents say of the settings and of the public API."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

import pseudolabel
from pseudolabel.config import CrfConfig, Experiment

METHODS = Path(__file__).parents[1] / "docs" / "methods.md"
SECTIONS = ["diffsegmenter", "elbo", "diffseg", "freesegdiff", "captions", "filter", "crf", "refine"]
KERNELS = [field.name for field in fields(CrfConfig) if field.name.startswith(("gaussian_", "bilateral_"))]
OF_NO_MEANING = {"captions.batch", "freesegdiff.crf"}  # the latter's own options have rows


def read_table() -> dict[str, dict[str, str]]:
    """What stands first in code in the cells of paper, released code and our default, by option."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in METHODS.read_text().partition("## Every option")[2].splitlines()
        if line.startswith("| `")
    ]
    heads = ("paper", "released", "default")
    return {row[0].strip("`"): dict(zip(heads, map(first_code, row[1:4]), strict=True)) for row in rows}


def first_code(cell: str) -> str:
    return cell.split("`")[1] if "`" in cell else ""


@pytest.mark.parametrize("section", SECTIONS)
def test_the_table_of_methods_has_every_option_with_its_default(section: str) -> None:
    written = {name: row["default"] for name, row in read_table().items() if name.startswith(f"{section}.")}
    defaults = getattr(Experiment(), section)
    for field in fields(defaults):
        name = f"{section}.{field.name}"
        if name not in OF_NO_MEANING:
            assert yaml.safe_load(written.pop(name)) == getattr(defaults, field.name), name
    kernels = {name.removeprefix("freesegdiff.crf."): yaml.safe_load(value) for name, value in written.items()}
    expected = {name: getattr(defaults.crf, name) for name in kernels} if section == "freesegdiff" else {}
    assert kernels == expected
    if section == "freesegdiff":
        assert set(kernels) == {"iterations", *KERNELS}


def test_settings_of_paper_and_released_code_can_be_chosen() -> None:
    chosen = 0
    for name, row in read_table().items():
        section, _, option = name.partition(".")
        kind = type(getattr(Experiment(), section)).__annotations__.get(option)
        for value in (row["paper"], row["released"]):
            if hasattr(kind, "__args__") and "Literal" in str(kind) and value:
                assert value in kind.__args__, (name, value)
                chosen += 1
    assert chosen > 20


def test_the_api_reference_lists_every_public_name_once() -> None:
    listed = re.findall(r"^::: pseudolabel\.([\w.]+)$", (METHODS.parent / "api.md").read_text(), re.MULTILINE)
    expected = {*pseudolabel.__all__, *(f"crf.{name}" for name in pseudolabel.crf.__all__)} - {"__version__", "crf"}
    assert sorted(listed) == sorted(expected)
