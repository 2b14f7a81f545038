"""Methods of users' own files that lose samples or fail: nothing is lost without a word."""

from pathlib import Path

import pytest

import pseudolabel as pl
from pseudolabel.config import Experiment
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


pytestmark = pytest.mark.usefixtures("methods_restored")


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
    assert "masks: 3 samples done, 2 failed" in done.err
    assert "no_result" in done.out
    for kind in ("cams", "masks"):
        assert list(failures(Path(experiment.out) / kind).values()) == ["no_result"] * 2
    listed = call("failures", experiment.out)
    assert listed.status == 3
    assert "no_result: method 'mine' gave no result; a predictor yields every sample" in listed.out


def test_a_predictor_that_yields_nothing(experiment: Experiment, tmp_path: Path) -> None:
    summary = pl.cams(Experiment(), settings(experiment, write(tmp_path, NOTHING)))
    assert (summary.samples, summary.statuses, summary.exit_status) == (0, {"no_result": 5}, 3)
    assert "none of 5 samples was done" in summary.notes()[-1]


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


def test_segment_says_nothing_of_a_model_that_is_not_read(experiment: Experiment, tmp_path: Path) -> None:
    image = min((Path(experiment.source.path) / "JPEGImages").iterdir())
    given = (
        "segment",
        image,
        "--config",
        "shapes",
        "--method",
        "mine",
        "--plugins",
        write(tmp_path),
        "--classes",
        "star,",
    )
    done = call(*given, "--out", tmp_path / "out")
    assert done.status == 0, done.err
    assert "small model" not in done.err
    again = call(*given, "--out", tmp_path / "out", "--model.name", "/nowhere")
    assert "0 images segmented, 0 not, 1 left out, done before" in again.out


def test_segment_names_the_images_that_are_dropped(experiment: Experiment, tmp_path: Path) -> None:
    images = sorted((Path(experiment.source.path) / "JPEGImages").iterdir())[:2]
    plugin = write(tmp_path, DROP)
    done = call(
        "segment", *images, "--method", "mine", "--plugins", plugin, "--classes", "star,", "--out", tmp_path / "o"
    )
    assert done.status == 3
    assert "1 image segmented, 1 not" in done.out
    assert f"not segmented: '{images[1]}': method 'mine' gave no result" in done.err


@pytest.mark.parametrize(
    ("here", "problem"),
    [
        ("maps[0, 0, 0] = np.nan", "`maps` holds NaN"),
        ("maps *= 300", "`maps` has values from 150 to 300"),
        ("maps = maps.astype(np.float32)", "`maps` is float32; give a numpy array, float16"),
        (
            "maps = np.zeros((9, 4, 4), np.float16)",
            "`maps` has the shape (9, 4, 4); give (C, h, w) with a map for each",
        ),
    ],
)
def test_a_result_that_cannot_be_used_fails_where_it_is_made(
    experiment: Experiment, tmp_path: Path, here: str, problem: str
) -> None:
    plugin = write(tmp_path, f"if number == 1: {here}")
    summary = pl.cams(Experiment(), settings(experiment, plugin))
    assert summary.statuses == {"ok": 3, "invalid_result": 2}
    message = summary.first_failures["invalid_result"][0]
    assert "method 'mine' gave a result that cannot be used: " + problem in message


def place(plugin: Path, text: str) -> str:
    """The place of a line that contains a text, as messages name it."""
    number = next(number for number, line in enumerate(plugin.read_text().splitlines(), 1) if text in line)
    return f"method 'mine' of '{plugin}', line {number}: "


def test_an_exception_is_one_message_with_its_line(experiment: Experiment, tmp_path: Path) -> None:
    plugin = write(tmp_path, "maps[99]")
    expected = place(plugin, "maps[99]") + "IndexError: index 99 is out of bounds"
    done = command("generate", experiment, plugin)
    assert done.is_clean_error()
    assert done.err.splitlines()[-1].startswith(f"pseudolabel generate: {expected}")
    assert "Traceback" in command("generate", experiment, plugin, "--verbose").err
    with pytest.raises(pl.MethodError, match="IndexError") as caught:
        pl.ImageMethod("mine")(min((Path(experiment.source.path) / "JPEGImages").iterdir()), ["star"])
    assert isinstance(caught.value.__cause__, IndexError)


@pytest.mark.parametrize(
    ("before", "after", "line", "message"),
    [
        ("        pass", "        1 / 0", "1 / 0", "ZeroDivisionError: division by zero"),
        ("return {}", "return self.nothing", "self.nothing", "AttributeError: 'Predictor' object has no attr"),
        ("    def settings", "    def view(self, image): image.nothing()\n\n    def settings", "nothing()", "Attr"),
        ('lambda _: "cams"', "lambda own: own.kind", "own.kind", "AttributeError: 'Settings' object has no attr"),
    ],
)  # fmt: skip
def test_every_part_of_a_method_may_fail(
    experiment: Experiment, tmp_path: Path, before: str, after: str, line: str, message: str
) -> None:
    plugin = write(tmp_path)
    plugin.write_text(plugin.read_text().replace(before, after))
    done = command("generate", experiment, plugin)
    assert done.is_clean_error()
    assert place(plugin, line) + message in done.err


def test_settings_may_refuse_a_value(experiment: Experiment, tmp_path: Path) -> None:
    plugin = write(tmp_path)
    check = (
        "    odd: int = 1\n    def __post_init__(self):\n        if self.odd % 2 == 0: raise ValueError('it is even')"
    )
    plugin.write_text(PLUGIN.replace("    '''Settings of a method without a model.'''", check))
    done = command("generate", experiment, plugin, "--mine.odd", 2)
    assert done.status == 2
    assert done.err.splitlines()[-1] == f"error: --mine of '{plugin}', line 10: ValueError: it is even"
    with pytest.raises(pl.SettingError, match="line 10: ValueError: it is even"):
        pl.cams(Experiment(), {**settings(experiment, plugin), "mine.odd": 2})


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "return {}",
            "return {'a': np.zeros(3)}",
            "what `settings()` gives is not ready for JSON: Object of type ndar",
        ),
        ('lambda _: "cams"', 'lambda _: "cam"', "method 'mine' produces 'cam'; give one of cams, masks, segments"),
        (
            "# here",
            "raise pl.SampleError('dark', 'too dark')",
            "raises a SampleError instead of yielding it, 'too dark'",
        ),
    ],
)
def test_what_a_method_is_asked_for(
    experiment: Experiment, tmp_path: Path, before: str, after: str, message: str
) -> None:
    plugin = write(tmp_path)
    plugin.write_text(PLUGIN.replace(before, after))
    done = command("generate", experiment, plugin)
    assert done.is_clean_error()
    assert message in done.err


def test_a_failure_that_is_yielded_is_the_samples_own(experiment: Experiment, tmp_path: Path) -> None:
    plugin = write(tmp_path, "yield sample, pl.SampleError('dark', 'too dark'); continue")
    assert pl.cams(Experiment(), settings(experiment, plugin)).statuses == {"dark": 5}
