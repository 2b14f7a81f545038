"""From CAM shards to masks by either engine: equal labels, batches that fit, failures that stay with their sample."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pseudolabel.config import CrfConfig
from pseudolabel.crf import engines
from pseudolabel.crf.torch_engine import TorchMeanField
from pseudolabel.errors import SampleError
from pseudolabel.experiment_file import open_experiment
from pseudolabel.records import Sample, ScoreMaps
from pseudolabel.shapes.world import draw_scene
from pseudolabel.shards.sample import encode_cams
from pseudolabel.stages import refiners
from pseudolabel.stages.refiners import batches, decode, open_refiner
from pseudolabel.vocabulary import load_vocabulary

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
CRF = open_experiment("shapes").crf
VOCABULARY = load_vocabulary("shapes")
SIZES = [64, 40, 64, 52, 40, 64]


def cam_samples():
    """Scenes of several sizes and numbers of classes, one of them empty; their CAMs are the masks, small."""
    rng = np.random.default_rng(0)
    samples = []
    for number, size in enumerate(SIZES):
        scene = draw_scene(rng, size)
        classes = () if number == 3 else scene.classes
        masks = [Image.fromarray((scene.labels == index).astype(np.uint8)).resize((16, 16)) for index in classes]
        maps = np.array([np.asarray(mask) for mask in masks], np.float16).reshape(-1, 16, 16)
        key = f"scene_{number}"
        cams = ScoreMaps(key, classes, maps, (size, size))
        samples.append((key, encode_cams(Sample(key, scene.image, classes), cams, VOCABULARY)))
    return samples


def refined(samples, engine, crf=CRF, device=CPU):
    with open_refiner(replace(crf, engine=engine), device, 1) as refiner:
        return dict(refiner(samples))


def mask(members):
    return np.asarray(Image.open(io.BytesIO(members["png"])))


@pytest.mark.parametrize(
    "crf", [CRF, CrfConfig(), replace(CRF, iterations=0), replace(CRF, image="wrapped")],
    ids=["shapes", "clip-es", "none", "wrapped"],
)  # fmt: skip
@pytest.mark.parametrize("engine", ["scipy", "torch"])
def test_all_engines_write_the_same_masks(crf, engine):
    samples = cam_samples()
    by_cores, by_device = refined(samples, "pydensecrf", crf), refined(samples, engine, crf)
    assert by_cores.keys() == by_device.keys() == {key for key, _ in samples}
    for key in by_cores:
        assert by_device[key].keys() == {"jpg", "png", "json"}
        assert (mask(by_cores[key]) == mask(by_device[key])).mean() >= 0.999
    assert not mask(by_device["scene_3"]).any()
    assert len(np.unique(mask(by_device["scene_0"]))) > 1


def test_batch_size_does_not_change_masks(monkeypatch):
    together = refined(cam_samples(), "torch")
    monkeypatch.setattr(refiners, "PIXELS_TOGETHER", 1)
    assert refined(cam_samples(), "torch") == together


def test_batches_have_one_class_count_and_limited_pixels():
    decoded = [decode(sample) for sample in cam_samples() * 3]
    found = list(batches(decoded, 64 * 64 * 2))
    assert sorted(one.key for batch in found for one in batch) == sorted(one.key for one in decoded)
    assert any(len(batch) > 1 for batch in found)
    for batch in found:
        assert len({len(one.cams.scores.classes) for one in batch}) == 1
        assert len(batch) == 1 or sum(one.pixels for one in batch) <= 64 * 64 * 2
    assert [len(batch) for batch in batches(decoded, 1)] == [1] * len(decoded)


@pytest.mark.parametrize("engine", ["pydensecrf", "scipy", "torch"])
def test_failures_stay_with_their_samples(engine):
    samples = cam_samples()
    samples[1] = (samples[1][0], {**samples[1][1], "jpg": b"no image"})
    samples[2] = (samples[2][0], {"jpg": samples[2][1]["jpg"]})
    samples[4] = (samples[4][0], {**samples[4][1], "jpg": samples[0][1]["jpg"]})
    samples[5] = (samples[5][0], {**samples[5][1], "cam.npz": not_finite()})
    results = refined(samples, engine)
    failures = {key: str(result) for key, result in results.items() if isinstance(result, SampleError)}
    assert sorted(failures) == ["scene_1", "scene_2", "scene_4", "scene_5"]
    assert "has members ['jpg']" in failures["scene_2"]
    assert "maps for an image of (40, 40), but it has (64, 64)" in failures["scene_4"]
    assert "not finite" in failures["scene_5"]


def not_finite():
    buffer = io.BytesIO()
    np.savez(buffer, maps=np.full((1, 16, 16), np.nan, np.float16), classes=np.array([1]))
    return buffer.getvalue()


def test_a_batch_that_is_too_large_is_split_into_halves(monkeypatch):
    """The memory's end is made by hand; what follows is the real engine."""
    expected, infer, sizes = refined(cam_samples(), "torch"), TorchMeanField.__call__, []

    def small_device(self, images, scores):
        sizes.append(len(images))
        if sum(image.shape[0] for image in images) > 64:
            raise torch.OutOfMemoryError("out of memory")
        return infer(self, images, scores)

    monkeypatch.setattr(TorchMeanField, "__call__", small_device)
    assert refined(cam_samples(), "torch") == expected
    assert max(sizes) > 1


def test_an_image_too_large_for_the_lattice_fails():
    found = refined(cam_samples()[:1], "torch", replace(CRF, bilateral_srgb=1e-6))
    assert "`crf.engine` pydensecrf" in str(found["scene_0"])
    assert "too far apart" in str(found["scene_0"])


def test_images_too_large_for_the_device_use_the_cpu(monkeypatch):
    """Only those: the others are still done by the device's engine."""
    expected, infer, sizes = refined(cam_samples(), "scipy"), TorchMeanField.__call__, []

    def note(self, images, scores):
        sizes.extend(image.shape[0] for image in images)
        return infer(self, images, scores)

    monkeypatch.setattr(TorchMeanField, "__call__", note)
    monkeypatch.setattr(engines, "LARGEST_ON_DEVICE", 52 * 52)
    found = refined(cam_samples(), "torch")
    assert sorted(sizes) == [40, 40]  # the one of 52 is empty
    for key, size in zip(expected, SIZES, strict=True):
        if size == 64:
            assert found[key] == expected[key]
        else:
            assert (mask(found[key]) == mask(expected[key])).mean() >= 0.999
