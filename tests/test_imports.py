"""The design's rule: each folder imports only from folders on its left."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Top-level modules that every folder may import.
BASIS = {"errors", "records", "limits", "config", "vocabulary", "vocabulary_file", "score_maps"}
LOW = BASIS | {"io", "runtime"}
MODELS = LOW | {"sources", "diffusion", "text", "crf"}
ALLOWED = {
    **dict.fromkeys(BASIS - {"vocabulary_file"}, BASIS),
    "vocabulary_file": LOW,
    "experiment_file": LOW | {"methods", "settings_parser"},
    "settings_parser": LOW | {"methods"},
    "options": LOW | {"methods", "settings_parser"},
    "io": LOW,
    "runtime": LOW,
    "shapes": LOW,
    "sources": LOW | {"shapes"},
    "diffusion": LOW,
    "text": LOW | {"sources", "diffusion"},
    "crf": LOW,
    "methods": MODELS - {"sources"},
    "shards": LOW,
    "evaluation": LOW | {"shards"},
    "exports": LOW | {"shards"},
    "views": LOW | {"shards", "evaluation"},
    "stages": MODELS | {"methods", "shards", "evaluation", "views", "experiment_file", "shapes"},
    "papers": MODELS | {"methods", "shards", "evaluation", "views", "experiment_file", "stages"},
    "pseudolabel_train": LOW | {"crf", "shards"},
}
ENTRY_POINTS = {"__init__", "__main__", "cli", "cli_exchange", "cli_inspect", "command_line"}  # they import everything


def modules() -> list[Path]:
    return [*(ROOT / "pseudolabel").rglob("*.py"), *(ROOT / "train" / "pseudolabel_train").rglob("*.py")]


def part_of(module: str) -> str:
    """The folder, or the top-level module, of a module's name."""
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] if package == "pseudolabel" and rest else package


def imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {part_of(name) for name in names if name.partition(".")[0] in ("pseudolabel", "pseudolabel_train")}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_folders_import_only_from_their_left(path: Path) -> None:
    inside = path.relative_to(ROOT)
    own = "pseudolabel_train" if inside.parts[0] == "train" else inside.with_suffix("").parts[1]
    if own in ENTRY_POINTS and len(inside.parts) == 2:
        return
    assert imported(path) - {own, "pseudolabel"} <= ALLOWED[own]


def test_every_folder_has_its_rule() -> None:
    folders = {path.name for path in (ROOT / "pseudolabel").iterdir() if (path / "__init__.py").is_file()}
    assert folders <= ALLOWED.keys()


def test_only_stages_and_the_command_line_use_an_experiment() -> None:
    """Components take the values that they need."""
    seen = set()
    for path in modules():
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        if "Experiment" in {alias.name for node in nodes for alias in node.names}:
            seen.add(path.relative_to(ROOT / "pseudolabel").with_suffix("").parts[0])
    assert seen <= {"stages", "papers", "experiment_file", "settings_parser", "cli", "cli_exchange", "__init__"}
