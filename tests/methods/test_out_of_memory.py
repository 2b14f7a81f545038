"""A device whose memory is too small for a batch: every method takes less at once, and gives the same results."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from pseudolabel.config import DiffSegConfig, DiffSegmenterConfig, ElboConfig, FreeSegDiffConfig
from pseudolabel.experiment_file import open_experiment
from pseudolabel.methods.checked_predictor import CheckedPredictor
from pseudolabel.methods.registry import find_method
from pseudolabel.records import LabelMap, Sample, ScoreMaps
from pseudolabel.runtime.halving import Halving
from pseudolabel.shapes.world import draw_scene
from pseudolabel.vocabulary import load_vocabulary
from tests.plain.architectures import context, loaded

VOCABULARY = load_vocabulary("shapes")
METHODS = {
    "diffsegmenter": ("diffsegmenter", DiffSegmenterConfig(timesteps=[50, 150], level_weights={8: 0.5, 16: 0.5})),
    "joint": ("diffsegmenter", DiffSegmenterConfig(prompt="joint", timesteps=[50], level_weights={8: 0.5, 16: 0.5})),
    "elbo": ("elbo", ElboConfig(samples=2)),
    "diffseg": ("diffseg", DiffSegConfig()),
    "semantic diffseg": ("diffseg", replace(open_experiment("shapes").diffseg, semantic=True)),
    "diffcut": ("diffseg", DiffSegConfig(grouping="ncut", timestep=50)),
    "freesegdiff": ("freesegdiff", FreeSegDiffConfig(clip="shapes", refinement="none")),
}
BATCH, FITS = 6, {"unet": 2, "vae": 2}


@pytest.fixture
def samples() -> list[Sample]:
    scenes = [draw_scene(np.random.default_rng([5, number])) for number in range(7)]
    return [Sample(f"scene_{number}", scene.image, scene.classes) for number, scene in enumerate(scenes)]


@pytest.fixture
def small_memory(monkeypatch) -> Iterator[dict[str, list[int]]]:
    """The shared model on a device with memory for a few rows: the numbers of rows of each attempt."""
    model, attempts = loaded("shapes"), {"unet": [], "vae": []}
    for name, part in (("unet", model.unet), ("vae", model.vae.encoder)):
        forward = part.forward

        def limited(rows, *arguments, _name=name, _forward=forward, **options):
            attempts[_name].append(len(rows))
            if len(rows) > FITS[_name]:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return _forward(rows, *arguments, **options)

        monkeypatch.setattr(part, "forward", limited)
    yield attempts
    model.in_parts.most = None


def values(result: ScoreMaps | LabelMap) -> np.ndarray:
    return result.maps.astype(np.float32) if isinstance(result, ScoreMaps) else result.labels


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_every_method_goes_on_with_less_at_once(name, samples, small_memory, caplog, monkeypatch) -> None:
    method, settings = METHODS[name]
    entry, own = find_method(method), replace(context("shapes", VOCABULARY), batch=BATCH)
    found = list(CheckedPredictor(entry, own, settings)(samples))
    tried = {part: sum(rows > FITS[part] for rows in attempts) for part, attempts in small_memory.items()}
    assert all(0 < count <= 2 for count in tried.values()), tried  # what was too much is not tried again
    assert len([one for one in caplog.records if "`work.batch` sets their number" in one.message]) == sum(
        tried.values()
    )
    monkeypatch.undo()
    expected = list(CheckedPredictor(entry, own, settings)(samples))
    assert [sample.key for sample, _ in found] == [sample.key for sample, _ in expected]
    for (_, ours), (_, theirs) in zip(found, expected, strict=True):
        if isinstance(ours, ScoreMaps):
            np.testing.assert_allclose(values(ours), values(theirs), atol=2e-3)
        else:
            assert (values(ours) == values(theirs)).mean() > 0.999


def test_a_single_row_that_does_not_fit_is_an_error(samples, small_memory, monkeypatch) -> None:
    monkeypatch.setitem(FITS, "unet", 0)
    predictor = CheckedPredictor(find_method("diffsegmenter"), context("shapes", VOCABULARY), METHODS["joint"][1])
    with pytest.raises(torch.OutOfMemoryError):
        list(predictor(samples[:1]))


def test_parts_are_the_rows_in_order() -> None:
    in_parts, sizes = Halving(), []

    def double(rows: torch.Tensor, words: list[str], nothing: None) -> torch.Tensor:
        sizes.append(len(rows))
        assert len(words) == len(rows)
        assert nothing is None
        if len(rows) > 3:
            raise torch.OutOfMemoryError
        return rows * 2

    rows = torch.arange(9)
    assert torch.equal(torch.cat(in_parts(double, rows, list("abcdefghi"), None)), rows * 2)
    assert sizes == [9, 4, 2, 2, 2, 2, 1]
    assert len(in_parts(double, rows[:2], ["a", "b"], None)) == 1
