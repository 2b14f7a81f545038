"""Methods of users' own files that lose samples or fail: nothing is lost without a word."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import pseudolabel as pl
from pseudolabel.config import Experiment
from pseudolabel.methods.registry import METHODS
from tests.e2e.commands import Outcome, call, failures

PLUGIN = """
from dataclasses import dataclass
import numpy as np
import pseudolabel as pl

@dataclass(frozen=True)
class Settings:
    '''Settings of a method without a model.'''

class Predictor:
    def __init__(self, context, settings):
        pass

    def settings(self):
        return {}

    def __call__(self, samples):
        for number, sample in enumerate(samples):
            maps = np.full((len(sample.classes), 4, 4), 0.5, np.float16)
            maps[:, :2] = 1
            # here
            yield sample, pl.ScoreMaps(sample.key, sample.classes, maps, sample.size)

pl.register_method(pl.Method("mine", Predictor, Settings, lambda _: "cams", needs_model=False))
"""
DROP = "if number % 2: continue"
NOTHING = "return"


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    """Remove the method after each test."""
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)


def write(folder: Path, here: str = "") -> Path:
    """The plugin, with other code in its loop."""
    file = folder / "mine.py"
    file.write_text(PLUGIN.replace("# here", here))
    return file


def settings(experiment: Experiment, plugin: Path) -> dict[str, object]:
    own = {"method": "mine", "plugins": [str(plugin)], "work.unit": 2, "work.workers": 1, "crf": "none"}
    data = {"source.path": experiment.source.path, "source.split": "val", "vocabulary": "shapes"}
    return {**own, **data, "out": experiment.out}


def command(name: str, experiment: Experiment, plugin: Path, *options: object) -> Outcome:
    values = {**settings(experiment, plugin), "plugins": plugin}
    given = [part for setting, value in values.items() for part in (f"--{setting}", value)]
    return call(name, *given, *options)


def test_dropped_samples_are_failures(experiment: Experiment, tmp_path: Path) -> None:
    """Three units of two, two and one images."""
    done = command("generate", experiment, write(tmp_path, DROP))
    assert done.status == 3
    assert "masks: 3 samples done, 2 failed" in done.out
    assert "no_result" in done.out
    for kind in ("cams", "masks"):
        assert list(failures(Path(experiment.out) / kind).values()) == ["no_result"] * 2
    listed = call("failures", experiment.out)
    assert listed.status == 3
    assert "no_result: method 'mine' gave no result; a predictor yields every sample" in listed.out


def test_a_predictor_that_yields_nothing(experiment: Experiment, tmp_path: Path) -> None:
    summary = pl.cams(Experiment(), settings(experiment, write(tmp_path, NOTHING)))
    assert (summary.samples, summary.statuses, summary.exit_status) == (0, {"no_result": 5}, 3)
    assert "none of 5 samples was done" in summary.lines()[-1]


def test_images_in_memory_that_are_dropped(experiment: Experiment, tmp_path: Path) -> None:
    images = sorted((Path(experiment.source.path) / "JPEGImages").iterdir())
    pl.load_plugins([str(write(tmp_path, DROP))])
    method = pl.ImageMethod("mine")
    assert method(images[0], ["star"]).classes == ("star",)
    results = method(images, ["star"])
    assert next(results).classes == ("star",)
    with pytest.raises(pl.SampleError, match="method 'mine' gave no result"):
        next(results)
    pl.load_plugins([str(write(tmp_path, NOTHING))])
    with pytest.raises(pl.SampleError, match="method 'mine' gave no result"):
        pl.ImageMethod("mine")(images[0], ["star"])
    segmenter = pl.Segmenter.from_pretrained("/nowhere", method="mine", device="cpu")
    with pytest.raises(pl.SampleError, match="method 'mine' gave no result"):
        segmenter(images[0], ["star"])


def test_segment_names_the_images_that_are_dropped(experiment: Experiment, tmp_path: Path) -> None:
    images = sorted((Path(experiment.source.path) / "JPEGImages").iterdir())[:2]
    plugin = write(tmp_path, DROP)
    done = call(
        "segment", *images, "--method", "mine", "--plugins", plugin, "--classes", "star,", "--out", tmp_path / "o"
    )
    assert done.status == 3
    assert "1 image segmented, 1 not" in done.out
    assert f"not segmented: '{images[1]}': method 'mine' gave no result" in done.err
