"""The Python API: every name, methods on images in memory, refinement, and the stages as functions."""

import inspect
import io
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from PIL import Image
from transformers import AutoProcessor, CLIPModel, CLIPProcessor, CLIPTextModel, CLIPTokenizer

import pseudolabel as pl
from pseudolabel.cli import COMMANDS
from pseudolabel.crf.densecrf import refine as refine_scores
from pseudolabel.experiment_file import open_experiment
from pseudolabel.io import pretrained
from pseudolabel.shapes.world import Scene, draw_scene
from pseudolabel.vocabulary import load_vocabulary
from tests.e2e.commands import call, shards

pytestmark = pytest.mark.slow

METHODS = (pl.DiffSegmenter, pl.Elbo, pl.DiffSeg, pl.FreeSegDiff)
FAST = {pl.DiffSegmenter: {"timesteps": [50]}, pl.Elbo: {"samples": 2}, pl.DiffSeg: {}, pl.FreeSegDiff: {}}
NAMES = load_vocabulary("shapes").names


@pytest.fixture(scope="module")
def model():
    return pl.load_model("shapes", device="cpu")


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(np.random.default_rng(seed), 128) for seed in range(3)]


@pytest.fixture(scope="module")
def labels(scenes: list[Scene]) -> list[list[str]]:
    return [[NAMES[index] for index in scene.classes] for scene in scenes]


def same(one: pl.Segmentation, other: pl.Segmentation) -> bool:
    """Whether two results agree; scores up to the rounding of batches of another size."""
    if one.scores is not None and other.scores is not None:
        return one.classes == other.classes and bool(np.allclose(one.scores, other.scores, atol=2e-3))
    assert one.labels is not None
    assert other.labels is not None
    return one.names == other.names and bool((one.labels == other.labels).mean() > 0.999)


def test_every_name_exists_and_is_documented() -> None:
    for name in pl.__all__:
        assert getattr(pl, name) is not None
        assert name == "__version__" or getattr(pl, name).__doc__
    assert dir(pl) == sorted(pl.__all__)
    with pytest.raises(AttributeError, match="no attribute 'segment'"):
        pl.segment  # noqa: B018


def test_importing_loads_no_model_code() -> None:
    program = "import sys, pseudolabel; print({*sys.modules} & {'torch', 'diffusers', 'numpy', 'jsonargparse'})"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "set()\n"


def test_a_model_is_loaded_by_values(model) -> None:
    assert repr(model) == "DiffusionModel('shapes', 128 x 128 pixels, float32 on cpu)"
    half = pl.load_model("shapes", device="cpu", dtype=torch.bfloat16, image_size=64)
    assert repr(half) == "DiffusionModel('shapes', 64 x 64 pixels, bfloat16 on cpu)"


def test_an_incompatible_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(pl.ModelError, match=r"cannot load the diffusion model 'nobody/nothing'"):
        pl.load_model("nobody/nothing", local_files_only=True)
    with pytest.raises(pl.ModelError, match="holds unet/, vae/"):
        pl.load_model(str(tmp_path))
    with pytest.raises(pl.SettingError, match=r"`model.dtype` half: give one of auto, float32"):
        pl.load_model("shapes", dtype="half")
    with pytest.raises(pl.SettingError, match="there is no device 'abacus' here"):
        pl.load_model("shapes", device="abacus")
    with pytest.raises(pl.SettingError, match="needs a diffusion model, not a str; load one"):
        pl.DiffSegmenter("shapes")


def test_access_to_the_hub_reaches_every_loader(scenes, labels, monkeypatch) -> None:
    reached: dict[str, dict[str, object]] = {}

    def watch(kind: type) -> None:
        name = "load_config" if kind is DDPMScheduler else "from_pretrained"
        load = getattr(kind, name)

        def watched(*arguments: object, **options: object) -> object:
            reached[kind.__name__] = options
            return load(*arguments, **options)

        monkeypatch.setattr(kind, name, watched)

    kinds = (UNet2DConditionModel, AutoencoderKL, CLIPTextModel, CLIPTokenizer, DDPMScheduler)
    kinds += (CLIPModel, CLIPProcessor, AutoProcessor)
    for kind in kinds:
        watch(kind)
    monkeypatch.setattr(pretrained, "_models", WeakValueDictionary())  # other tests may use one that is loaded
    segment = pl.Segmenter.from_pretrained("shapes", token="secret", local_files_only=True)
    segment(scenes[0].image, "shapes")  # guessed by CLIP and a captioner
    for kind in kinds:
        options = reached.pop(kind.__name__)
        assert (options["token"], options["local_files_only"]) == ("secret", True), kind
    assert "secret" not in repr(segment)
    del segment  # its CLIP would be shared
    model = pl.load_model("shapes", token="secret", local_files_only=True)
    pl.FreeSegDiff(model)(scenes[0].image, labels[0])
    assert reached["CLIPModel"]["token"] == "secret"
    assert "secret" not in f"{model!r} {model.hub!r}"


@pytest.mark.parametrize("kind", METHODS)
def test_every_method_takes_one_image_or_many_in_any_form(kind, model, scenes, labels, tmp_path) -> None:
    method = kind(model, vocabulary="shapes", **FAST[kind])
    assert repr(method).startswith(f"{kind.__name__}(")
    scenes[0].image.save(tmp_path / "0.png")
    buffer = io.BytesIO()
    scenes[2].image.save(buffer, "PNG")
    images = [tmp_path / "0.png", np.asarray(scenes[1].image), buffer.getvalue()]
    results = list(method(images, labels=labels))
    alone = [method(scene.image, own) for scene, own in zip(scenes, labels, strict=True)]
    for result, one, scene, own in zip(results, alone, scenes, labels, strict=True):
        assert same(result, one)
        assert np.array_equal(np.asarray(result.image), np.asarray(scene.image))
        if kind in (pl.DiffSegmenter, pl.Elbo):
            assert (result.scores.dtype, result.scores.shape) == (np.float32, (len(own), 128, 128))
            assert 0 <= result.scores.min() <= result.scores.max() <= 1
            assert (result.classes, result.labels) == (tuple(own), None)
        else:
            assert (result.labels.dtype, result.labels.shape) == (np.uint8, (128, 128))
            assert set(result.names.values()) <= set(own)
            assert result.scores is None
        assert Image.open(io.BytesIO(result._repr_png_())).height > 128


def test_scores_equal_the_commands(model, experiment, few_shapes) -> None:
    """The maps of a CAM shard, but for the noise, which follows the source's keys there."""
    pl.cams(experiment, {"diffsegmenter.timesteps": [0], "diffsegmenter.level_weights": {8: 1.0}})
    dataset = pl.ShardDataset(f"{experiment.out}/cams")
    method = pl.DiffSegmenter(model, timesteps=[0], level_weights={8: 1.0}, vocabulary="shapes")
    results = list(
        method([item["image"].permute(1, 2, 0).numpy() for item in dataset], [i["classes"] for i in dataset])
    )
    assert len(results) == 5
    for item, result in zip(dataset, results, strict=True):
        assert item["classes"] == result.classes
        assert np.abs(item["scores"].numpy() - result.scores).mean() < 0.05


def test_diffseg_names_regions_if_labels_are_given(model, scenes, labels) -> None:
    regions = pl.DiffSeg(model)([scene.image for scene in scenes])
    assert all(set(result.names.values()) <= {f"region {label}" for label in range(1, 255)} for result in regions)
    images = [scene.image.resize((128, 96 + 8 * number)) for number, scene in enumerate(scenes)]
    named = list(pl.DiffSeg(model)(images, labels))
    assert [set(result.names.values()) <= set(own) for result, own in zip(named, labels, strict=True)] == [True] * 3
    assert [result.labels.shape for result in named] == [image.size[::-1] for image in images]


def test_captions_change_the_prompt(model, scenes, labels) -> None:
    method = pl.DiffSegmenter(model, timesteps=[50])
    plain = method(scenes[0].image, labels[0])
    caption = {name: f"a photo of {name} on a red background" for name in labels[0]}
    captioned = method(scenes[0].image, labels[0], captions=caption)
    assert not same(plain, captioned)
    assert same(method(scenes[0].image, labels[0]), plain)
    many = list(method([scene.image for scene in scenes[:2]], labels[:2], captions=[caption, {}]))
    assert same(many[0], captioned)
    named = pl.DiffSeg(model)(scenes[0].image, labels[0], captions=f"a {labels[0][0]} in the snow")
    assert set(named.names.values()) <= set(labels[0])
    with pytest.raises(pl.SettingError, match="reads a mapping from class name to sentence for each image"):
        method(scenes[0].image, labels[0], captions="a photo")
    with pytest.raises(pl.SettingError, match="'freesegdiff' reads no captions"):
        pl.FreeSegDiff(model)(scenes[0].image, labels[0], captions="a photo")


def test_settings_are_keywords_or_a_dataclass(model, scenes, labels) -> None:
    by_name = pl.DiffSegmenter(model, timesteps=[50], self_attention="none")
    chosen = replace(open_experiment("shapes").diffsegmenter, timesteps=[50], self_attention="none")
    assert by_name.settings == pl.DiffSegmenter(model, chosen).settings == chosen
    with pytest.raises(
        pl.SettingError, match=r"no setting `diffsegmenter.timestep`; did you mean `diffsegmenter.timesteps`"
    ):
        pl.DiffSegmenter(model, timestep=[50])
    with pytest.raises(pl.SettingError, match=r"`diffsegmenter.timesteps` \[5000\]: give one or more from 0 to 999"):
        pl.DiffSegmenter(model, timesteps=[5000])(scenes[0].image, labels[0])
    with pytest.raises(pl.SettingError, match="takes a DiffSegmenterConfig, not a ElboConfig"):
        pl.DiffSegmenter(model, pl.ElboConfig())


def test_arguments_must_match_the_images(model, scenes) -> None:
    method = pl.DiffSegmenter(model, vocabulary="shapes", timesteps=[50])
    with pytest.raises(pl.SettingError, match="needs the labels of each image"):
        method(scenes[0].image)
    with pytest.raises(pl.SettingError, match="1 images, but 2 lists of labels"):
        method([scenes[0].image], [["star"], ["square"]])
    for pair in (["star", "square"], ("star", "square")):
        with pytest.raises(
            pl.SettingError, match=r"2 images and one list of 2 .*\[\['star'\], \['square'\]\], or, if all"
        ):
            method([scene.image for scene in scenes[:2]], pair)
    found = method([scene.image for scene in scenes[:2]], [["star", "square"]] * 2)
    assert [result.classes for result in found] == [("square", "star")] * 2
    found = method([scene.image for scene in scenes], ["star", "square"])
    assert [result.classes for result in found] == [("square", "star")] * 3
    with pytest.raises(pl.SettingError, match=r"3 images and one list of 3 names.*\['square'\], ...\], or"):
        method([scene.image for scene in scenes], ["star", "square", "circle"])
    with pytest.raises(pl.VocabularyError, match="unknown class 'strar' in vocabulary 'shapes'; did you mean 'star'"):
        method(scenes[0].image, ["strar"])
    results = method([scenes[0].image, b"no image", scenes[1].image], ["star"])
    assert next(results).classes == ("star",)
    with pytest.raises(pl.SampleError, match="image 2: not an image") as caught:
        next(results)
    assert caught.value.status == "unreadable"


def test_exif_orientation_is_applied_as_by_the_command(model, scenes, tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    scenes[0].image.crop((0, 0, 128, 96)).save(tmp_path / "turned.jpg", exif=exif)
    result = pl.DiffSegmenter(model, timesteps=[50])(str(tmp_path / "turned.jpg"), ["star"])
    assert result.scores.shape == (1, 128, 96)


def test_an_image_has_the_same_noise_in_every_call(model, scenes, labels) -> None:
    method = pl.DiffSegmenter(model, timesteps=[50], batch=1)
    twice = list(method([scenes[0].image, scenes[1].image, scenes[0].image], labels[0]))
    assert np.array_equal(twice[0].scores, method(scenes[0].image, labels[0]).scores)
    assert len(twice) == 3


def test_refine_gives_labels_and_confidence(scenes) -> None:
    scene = scenes[0]
    scores = np.stack([np.where(scene.labels == index, 0.9, 0.05) for index in scene.classes])
    names = {index: NAMES[index] for index in scene.classes}
    result = pl.refine(scene.image, scores, names, iterations=2)
    expected = refine_scores(
        np.asarray(scene.image), scores.astype(np.float32), scene.classes, pl.CrfConfig(iterations=2)
    )
    assert np.array_equal(result.labels, expected[0])
    assert np.array_equal(result.confidence, expected[1])
    assert set(result.names) <= set(names)
    listed = pl.refine(np.asarray(scene.image), torch.tensor(scores), list(names.values()), "none", ignore_below=0.0)
    assert listed.names == dict(enumerate(names.values(), 1))
    assert ((listed.labels > 0) == (scene.labels > 0)).all()
    with pytest.raises(pl.SampleError, match=r"scores of shape \(1, 3, 3\) do not fit 1 classes and an image"):
        pl.refine(scene.image, scores[:1, :3, :3], ["star"])
    with pytest.raises(pl.SettingError, match=r"no setting `crf.iteration`; did you mean `crf.iterations`"):
        pl.refine(scene.image, scores, names, iteration=3)


def test_the_segmenter_takes_many_images_and_gives_scores(scenes, labels) -> None:
    segment = pl.Segmenter.from_pretrained("shapes", sharpen=True)
    assert "DiffusionModel('shapes'" in repr(segment)
    images = [scene.image for scene in scenes]
    results = list(segment(images, labels))
    for result, scene, own in zip(results, scenes, labels, strict=True):
        assert result.classes == tuple(sorted(own, key=[n for names in labels for n in names].index))
        assert result.scores.shape == (len(own), 128, 128)
        assert result.confidence.shape == result.labels.shape == (128, 128)
        found, true = result.labels > 0, scene.labels > 0
        assert (found & true).sum() / (found | true).sum() > 0.5
    assert [result.classes for result in segment(images, ["star"])] == [("star",)] * 3
    assert all(result.classes == ("star", "square", "heart") for result in segment(images, ["star", "square", "heart"]))
    assert len(list(segment(images, "shapes"))) == 3


def test_generate_writes_equal_bytes_from_python_and_the_shell(experiment, few_shapes, tmp_path) -> None:
    settings = {"source.path": str(few_shapes), "work.unit": 2, "crf.iterations": 2, "diffsegmenter.timesteps": [50]}
    options = [part for name, value in settings.items() for part in (f"--{name}", value)]
    done = call("generate", "--config", "shapes", *options, "--out", tmp_path / "shell")
    assert done.status == 0, done.err
    summary = pl.generate("shapes", settings | {"out": tmp_path / "python", "source.path": few_shapes})
    assert (summary.samples, summary.failed, summary.kind) == (5, 0, "masks")
    for kind in ("cams", "masks"):
        written = shards(tmp_path / "shell" / kind)
        assert len(written) == 4
        assert shards(tmp_path / "python" / kind) == written
    report = pl.evaluate("shapes", settings | {"out": tmp_path / "python"}, kind="masks")
    assert 0 < report.miou <= 1
    assert report.images == 5


def test_a_run_is_refined_drawn_and_inspected(experiment, few_shapes, tmp_path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(few_shapes, broken)
    image = sorted((broken / "JPEGImages").glob("*.jpg"))[0]
    image.write_bytes(image.read_bytes()[:500])
    chosen = open_experiment(experiment, {"source.path": broken, "crf.iterations": 2})
    assert pl.cams(chosen).failed == 1
    summary = pl.refine_cams(chosen)
    assert (summary.kind, summary.failed) == ("masks", 1)
    assert [(kind, failure.key) for kind, failure in pl.failures(chosen.out)] == [("cams", image.stem)]
    assert pl.verify(chosen.out) == []
    sheet = pl.sheet(chosen, rows=2, title="two")
    assert sheet == f"{chosen.out}/sheet.png"
    assert Image.open(sheet).width > 3 * 128
    shard = next(Path(chosen.out, "masks").glob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:-2000])
    assert pl.verify(chosen.out)[0].startswith(f"{chosen.out}/masks: {shard.stem}: ")


def test_images_are_segmented_into_files(few_shapes, tmp_path) -> None:
    image = sorted((few_shapes / "JPEGImages").glob("*.jpg"))[0]
    settings = {"out": tmp_path, "diffsegmenter.timesteps": [50]}
    outcome = pl.segment_images("shapes", settings, images=[image], classes="star, circle")
    assert (outcome.written, outcome.failures) == (1, {})
    assert sorted(path.name for path in tmp_path.iterdir() if image.stem in path.name) == [
        f"{image.stem}.json",
        f"{image.stem}.overlay.png",
        f"{image.stem}.png",
    ]


def test_every_command_has_a_call_in_the_table() -> None:
    page = (Path(__file__).parents[1] / "docs" / "python.md").read_text().partition("| command | Python |")[2]
    rows = [row.split(" | ") for row in page.partition("\n\n")[0].splitlines()[2:]]
    commands = [command for row in rows for command in re.findall(r"`([\w-]+)`", row[0])]
    assert sorted(commands) == sorted(COMMANDS)
    calls = re.findall(r"`pl\.(\w+)\(([^)]*)\)", page)
    assert len(calls) > 15
    for name, arguments in calls:
        taken = inspect.signature(getattr(pl, name)).parameters
        assert {part.strip(" =") for part in arguments.split(",") if "=" in part} <= {*taken}


def test_overrides_are_checked(tmp_path) -> None:
    with pytest.raises(pl.SettingError, match=r"no setting `source.pat`; did you mean `source.path`"):
        pl.generate("shapes", {"source.pat": tmp_path})
    with pytest.raises(pl.SettingError, match=r"`work.unit` two: give a whole number"):
        pl.cams("shapes", {"work.unit": "two"})
    with pytest.raises(pl.SettingError, match="none of that name ships; did you mean 'shapes'"):
        pl.evaluate("shaps", kind="masks")
    with pytest.raises(pl.SettingError, match="`method` diffseg gives no CAMs; use generate instead"):
        pl.cams("shapes", {"method": "diffseg"})
    chosen = open_experiment("shapes", {"crf": "none", "work.seed": 3})
    assert (chosen.crf.iterations, chosen.work.seed, chosen.vocabulary) == (0, 3, "shapes")
    assert open_experiment(chosen, {"out": tmp_path}) == replace(chosen, out=str(tmp_path))
