"""DiffSeg's predictor on Shapes: what becomes of samples, whoever they come with."""

import io
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pseudolabel.config import CaptionConfig, DiffSegConfig, Experiment
from pseudolabel.diffusion.noise import generator_of
from pseudolabel.errors import SampleError
from pseudolabel.methods.diffseg import AggregatedAttention
from pseudolabel.methods.diffseg_predictor import RESTARTS, DiffSegPredictor
from pseudolabel.methods.kmeans import kmeans
from pseudolabel.records import LabelMap, Sample
from pseudolabel.runtime.rank import Rank
from pseudolabel.shapes.world import draw_scene
from pseudolabel.sources.entry import Entry
from pseudolabel.stages.label import Inputs, write_labels
from pseudolabel.stages.units import Unit
from pseudolabel.vocabulary import Vocabulary, load_vocabulary
from tests.e2e.commands import samples as shard_samples
from tests.plain import diffseg as plain
from tests.plain.architectures import context, loaded
from tests.plain.diffsegmenter import Matrix, attend, encode_image, encode_text

MERGE = DiffSegConfig(threshold=0.05, anchors=8)
KMEANS = DiffSegConfig(grouping="kmeans", clusters=3)
NAMES = load_vocabulary("shapes")


@cache
def sample(number: int, size: tuple[int, int] = (128, 128)) -> Sample:
    scene = draw_scene(np.random.default_rng(number))
    return Sample(f"scene_{number}", scene.image.resize(size), scene.classes)


def label(config, samples, model="shapes", vocabulary=NAMES, captions=None, batch=4):
    predictor = DiffSegPredictor(context(model, vocabulary, captions, batch=batch), config)
    results = list(predictor(samples))
    assert [one.key for one, _ in results] == [one.key for one in samples]
    assert all(isinstance(result, SampleError) or result.key == one.key for one, result in results)
    return [result for _, result in results]


def labels_of(result):
    assert isinstance(result, LabelMap)
    assert result.labels.dtype == np.uint8
    return result.labels


@pytest.mark.parametrize("config", [MERGE, KMEANS], ids=["merge", "kmeans"])
def test_segments_are_numbered_from_one_at_the_images_size(config):
    labels = labels_of(label(config, [sample(0, (150, 110))])[0])
    assert labels.shape == (110, 150)
    count = len(np.unique(labels))
    assert np.unique(labels).tolist() == list(range(1, count + 1))
    assert count > 1


def test_segments_equal_the_plain_loop():
    (result,) = label(MERGE, [sample(1)])
    tensor = plain.aggregate(plain.self_attention(loaded("shapes"), sample(1).image, 300), "per_resolution")
    expected = plain.segment(plain.proposals(tensor, MERGE), (128, 128))
    np.testing.assert_array_equal(labels_of(result), np.unique(expected, return_inverse=True)[1] + 1)


def test_crop_is_the_centre_square_and_the_rest_is_ignored():
    wide, high = sample(0, (160, 100)), sample(1, (90, 140))
    for one, box in ((wide, (30, 0, 130, 100)), (high, (0, 25, 90, 115))):
        labels = labels_of(label(replace(MERGE, fit="crop"), [one])[0])
        square = Sample(one.key, one.image.crop(box), one.classes)
        left, top, right, bottom = box
        np.testing.assert_array_equal(labels[top:bottom, left:right], labels_of(label(MERGE, [square])[0]))
        assert (labels == 255).sum() == labels.size - (right - left) * (bottom - top)
        assert labels.shape == (one.image.height, one.image.width)


@pytest.mark.parametrize("config", [MERGE, KMEANS, replace(MERGE, semantic=True)], ids=["merge", "kmeans", "semantic"])
def test_other_images_of_a_batch_change_nothing(config):
    several = [sample(number) for number in range(5)]
    together = [labels_of(result) for result in label(config, several)]
    alone = [labels_of(label(config, [one], batch=1)[0]) for one in several]
    assert all((one == other).mean() > 0.999 for one, other in zip(together, alone, strict=True))


@pytest.mark.parametrize("clusters", [3, 0])
def test_kmeans_groups_the_rows_of_the_aggregated_attention(clusters):
    model, one = loaded("shapes"), sample(3)
    (maps,) = AggregatedAttention(model, KMEANS)(model.encode(model.pixels(one.image)[None]))
    count = clusters or len(one.classes) + 1
    expected = kmeans(maps, count, [generator_of(0, "kmeans", one.key)], RESTARTS)[0].reshape(16, 16)
    labels = labels_of(label(replace(KMEANS, clusters=clusters), [one])[0])
    assert len(np.unique(labels)) == count
    # The centre of a cell of 8 x 8 pixels has its position's cluster; they are numbered as K-means has them.
    np.testing.assert_array_equal(labels[3::8, 3::8], np.unique(expected.numpy(), return_inverse=True)[1] + 1)


def test_the_cluster_number_counts_background_only_if_present():
    one = sample(3)
    without = replace(NAMES, has_background=False)
    config = replace(KMEANS, clusters=0)
    for vocabulary, extra in ((NAMES, 1), (without, 0)):
        labels = labels_of(label(config, [one], vocabulary=vocabulary)[0])
        assert len(np.unique(labels)) == len(one.classes) + extra
        bare = labels_of(label(config, [replace(one, classes=())], vocabulary=vocabulary)[0])
        assert np.unique(bare).tolist() == [1]


def plain_columns(vocabulary: Vocabulary, classes: tuple[int, ...]) -> tuple[str, list[list[int]]]:
    """The template's sentence and the positions of each class's token; these names have one each."""
    words = vocabulary.template.format(" and ".join(vocabulary.prompt(index) for index in classes)).split(" ")
    return " ".join(words), [[1 + words.index(vocabulary.prompt(index))] for index in classes]


def test_names_equal_the_plain_loop():
    one, model = next(sample(number) for number in range(9) if len(sample(number).classes) > 1), loaded("shapes")
    segments = labels_of(label(MERGE, [one])[0]).astype(int) - 1
    text, weights = plain_columns(NAMES, one.classes)
    with torch.inference_mode():
        attention: list[Matrix] = attend(model, encode_image(model, one.image, None), 300, encode_text(model, text))
    tensors = [matrix.probabilities.mean(0).numpy() for matrix in attention if matrix.is_cross]
    named = np.array(one.classes)[plain.name_segments(segments, tensors, weights)]
    labels = labels_of(label(replace(MERGE, semantic=True), [one])[0])
    np.testing.assert_array_equal(labels, named[segments])
    assert len(np.unique(labels)) > 1


def test_without_background_classes_cover_the_image():
    one, other, none = replace(sample(0), classes=(2,)), replace(sample(1), classes=(1, 6)), sample(2, (60, 40))
    results = label(replace(MERGE, semantic=True), [one, replace(none, classes=()), other])
    single, background, several = (labels_of(result) for result in results)
    assert np.unique(single).tolist() == [2]
    assert background.shape == (40, 60)
    assert not background.any()
    assert set(np.unique(several)) <= {1, 6}


def test_an_images_caption_replaces_the_template():
    one = next(sample(number) for number in range(9) if len(sample(number).classes) > 1)
    names = [NAMES.prompt(index) for index in one.classes]
    config = replace(MERGE, semantic=True)
    (plainly,), (same,), (other,) = (
        label(config, [one], captions=captions)
        for captions in (
            None,
            {(one.key, ""): NAMES.template.format(" and ".join(names))},
            {(one.key, ""): " ".join([names[0]] * 20)},
        )
    )
    np.testing.assert_array_equal(labels_of(plainly), labels_of(same))
    assert (labels_of(plainly) != labels_of(other)).any()


def test_a_caption_too_long_for_the_text_encoder_is_a_bad_sample():
    one, other = sample(0), sample(1)
    words = {(one.key, ""): "grass " * 100}
    bad, good = label(replace(MERGE, semantic=True), [one, other], captions=words)
    assert isinstance(bad, SampleError)
    assert bad.status == "prompt"
    assert "no token of" in str(bad)
    labels_of(good)


def test_more_segments_than_a_mask_holds_is_a_bad_sample():
    config = DiffSegConfig(threshold=1e-6, iterations=1, anchors=24)
    (result,) = label(config, [sample(0, (192, 192))], model="tiny_v2")
    assert isinstance(result, SampleError)
    assert result.status == "segments"
    assert "a mask holds 254; raise `diffseg.threshold`" in str(result)


@pytest.mark.parametrize("semantic", [False, True])
def test_shards_hold_segments_or_named_masks(
    experiment: Experiment, one_rank: Rank, tmp_path: Path, semantic: bool
) -> None:
    captions = tmp_path / "captions.jsonl"
    captions.write_text(json.dumps({"key": "val_000001", "class": "", "caption": "a sentence"}) + "\n")
    settings = {"diffseg": replace(MERGE, semantic=semantic), "captions": CaptionConfig(source=str(captions))}
    experiment = replace(experiment, method="diffseg", **settings)
    summary, kind = write_labels(experiment, one_rank), "masks" if semantic else "segments"
    assert summary is not None
    assert (summary.kind, summary.samples, summary.failed) == (kind, 5, 0)
    for members in shard_samples(Path(experiment.out) / kind).values():
        assert set(members) == {"jpg", "png", "json"}
        found = np.unique(np.asarray(Image.open(io.BytesIO(members["png"])))).tolist()
        fields = json.loads(members["json"])
        assert fields["classes"] == found
        assert fields["names"] == ([NAMES.names[index] for index in found] if semantic else [])


def test_the_inputs_of_a_shard_include_captions():
    unit = Unit(0, (Entry("one", "one.jpg", (2,), "list"), Entry("other", "other.jpg", (), "list")))
    digests = [
        Inputs(NAMES, captions).digest(unit)
        for captions in (None, {("third", ""): "grass"}, {("one", ""): "grass"}, {("other", ""): "grass"})
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
