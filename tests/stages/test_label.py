"""Settings that may change, and those that may not, when a run resumes in its folder."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file

from pseudolabel.config import DiffSegConfig, Experiment, FreeSegDiffConfig, ModelConfig
from pseudolabel.errors import OutputError
from pseudolabel.io.shipped import resolve
from pseudolabel.runtime.rank import Rank
from pseudolabel.shards.ledger import RUN
from pseudolabel.stages.label import write_labels
from pseudolabel.vocabulary import load_vocabulary


@pytest.fixture
def begun(experiment: Experiment, one_rank: Rank) -> Experiment:
    """A run that has lost its last shard."""
    write_labels(experiment, one_rank)
    folder = Path(experiment.out, "cams")
    for name in ("cams-000002.tar", "cams-000002.json", "index.json"):
        (folder / name).unlink()
    return experiment


def kept(experiment: Experiment) -> list[int]:
    """Inodes of the first two shards: one that is written again gets another."""
    return [Path(experiment.out, f"cams/cams-{number:06d}.tar").stat().st_ino for number in (0, 1)]


def own_vocabulary(path: Path, **changes: Any) -> str:
    """Shapes' vocabulary in a file of the user's, with other entries for its classes."""
    shapes = load_vocabulary("shapes")
    classes: list[dict[str, Any]] = [{"name": entry.name, "prompt": entry.prompt} for entry in shapes.classes]
    classes[0] |= {"synonyms": ["thing"], **changes}
    path.write_text(yaml.safe_dump({"name": path.stem, "template": shapes.template, "classes": classes}))
    return str(path)


@pytest.mark.slow
def test_a_moved_checkpoint_and_a_smaller_batch_resume(
    begun: Experiment, one_rank: Rank, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moved = str(shutil.copytree(resolve("shapes", "diffusion"), tmp_path / "moved"))
    changed = replace(
        begun,
        model=ModelConfig(name=moved, revision="other", dtype="bfloat16"),
        work=replace(begun.work, batch=4, loaders=1, workers=2),
        source=replace(begun.source, max_pixels=10**6),
        vocabulary=own_vocabulary(tmp_path / "mine.yaml"),
    )
    before = kept(begun)
    caplog.set_level("INFO", logger="pseudolabel")
    summary = write_labels(changed, one_rank)
    assert summary is not None
    assert (summary.samples, summary.shards) == (5, 3)
    assert kept(begun) == before
    assert (
        "cams: the run resumes with model.dtype: float32 -> bfloat16, model.name: shapes -> "
        f"{moved}, model.revision: main -> other, vocabulary: shapes -> mine, work.batch: 16 -> 4\n"
    ) in caplog.text
    run = json.loads(Path(begun.out, "cams", RUN).read_bytes())
    assert run["about"]["model"]["name"] == "shapes"  # as it was begun
    assert "shapes" not in json.dumps(run["settings"])


def other_weights(experiment: Experiment, folder: Path) -> Experiment:
    model = shutil.copytree(resolve("shapes", "diffusion"), folder / "model")
    path = model / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["conv_in.bias"][-1] += 0.01
    save_file(weights, path)
    return replace(experiment, model=ModelConfig(name=str(model)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "line"),
    [
        (other_weights, "model.weights: "),
        (lambda own, _: replace(own, model=replace(own.model, image_size=64)), "model.image_size: 128 -> 64"),
        (lambda own, _: replace(own, work=replace(own.work, seed=1)), "work.seed: 0 -> 1"),
        (lambda own, _: replace(own, work=replace(own.work, unit=1)), "work.unit: 2 -> 1"),
        (
            lambda own, path: replace(own, vocabulary=own_vocabulary(path / "a.yaml", prompt="heap")),
            "vocabulary.prompts: ",
        ),
        (
            lambda own, _: replace(own, diffsegmenter=replace(own.diffsegmenter, class_weight=1.0)),
            "diffsegmenter.class_weight: 1.21 -> 1.0",
        ),
    ],
)
def test_settings_that_define_masks_are_fixed(
    begun: Experiment, one_rank: Rank, tmp_path: Path, change, line: str
) -> None:
    with pytest.raises(OutputError, match="holds cams of a run with other settings") as error:
        write_labels(change(begun, tmp_path), one_rank)
    assert [shown for shown in str(error.value).splitlines() if shown.startswith(f"  {line}")], error.value
    assert "batch" not in str(error.value)


def test_a_run_of_an_earlier_version_is_not_continued(begun: Experiment, one_rank: Rank) -> None:
    path = Path(begun.out, "cams", RUN)
    run = json.loads(path.read_bytes())
    del run["about"]
    path.write_text(json.dumps(run))
    with pytest.raises(OutputError, match=r"of an earlier version of pseudolabel.*Choose another `out`"):
        write_labels(begun, one_rank)


def settings_of(experiment: Experiment) -> dict[str, Any]:
    run = json.loads(Path(experiment.out, "masks", RUN).read_bytes())
    return run["settings"]


@pytest.mark.slow
def test_freesegdiff_s_other_models_are_compared_by_weights(
    experiment: Experiment, one_rank: Rank, tmp_path: Path
) -> None:
    first = replace(
        experiment,
        method="freesegdiff",
        source=replace(experiment.source, limit=2),
        freesegdiff=FreeSegDiffConfig(clip="shapes", backbone="shapes", refinement="none", strides=[8]),
    )
    write_labels(first, one_rank)
    settings = settings_of(first)
    clip = shutil.copytree(resolve("shapes", "clip"), tmp_path / "clip")
    moved = replace(first, freesegdiff=replace(first.freesegdiff, clip=str(clip), backbone=str(clip)))
    write_labels(moved, one_rank)
    assert settings_of(moved) == settings
    assert settings["freesegdiff"]["clip"] == settings["freesegdiff"]["backbone"]
    assert "engine" not in settings["freesegdiff"]["crf"]
    weights = load_file(clip / "model.safetensors")
    weights["visual_projection.weight"][-1, -1] += 1
    save_file(weights, clip / "model.safetensors")
    for part in ("clip", "backbone"):
        changed = replace(first, freesegdiff=replace(first.freesegdiff, **{part: str(clip)}))
        with pytest.raises(
            OutputError, match=rf"\n  freesegdiff\.{part}: other content than when the run began\nChoose"
        ):
            write_labels(changed, one_rank)


def test_synonyms_count_if_captions_are_searched_for_them(
    experiment: Experiment, one_rank: Rank, tmp_path: Path
) -> None:
    captions = tmp_path / "captions.jsonl"
    captions.write_text(json.dumps({"key": "val_000001", "class": "", "caption": "a heap"}))
    experiment = replace(
        experiment,
        method="diffseg",
        diffseg=DiffSegConfig(semantic=True, anchors=4),
        source=replace(experiment.source, limit=2),
        captions=replace(experiment.captions, source=str(captions)),
        vocabulary=own_vocabulary(tmp_path / "first.yaml"),
    )
    write_labels(experiment, one_rank)
    with pytest.raises(OutputError, match=r"\n  diffseg\.synonyms: \[\['thing'\], .*\] -> \[\['heap'\], .*\]\nChoose"):
        write_labels(replace(experiment, vocabulary=own_vocabulary(tmp_path / "b.yaml", synonyms=["heap"])), one_rank)
