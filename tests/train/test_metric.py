"""IoUMetric with DenseCRF in worker processes: the same scores as one by one, and masks that VOC's server reads."""

import numpy as np
import pytest
import torch
from mmseg.evaluation import IoUMetric
from PIL import Image

from pseudolabel.config import CrfConfig
from pseudolabel.crf.densecrf import refine_probabilities
from pseudolabel.errors import SettingError
from pseudolabel.vocabulary import voc_palette
from pseudolabel_train.metric import CrfIoUMetric

CLASSES = ("background", "circle", "square")
CRF = {"bilateral_sxy": 10, "bilateral_srgb": 8, "iterations": 5}


def outputs(count: int) -> tuple[dict, list[dict]]:
    """A batch as MMSegmentation gives it: two-coloured images, their truth, and noisy logits for it."""
    rng = np.random.default_rng(0)
    images, samples = [], []
    for number in range(count):
        height, width = 30 + number, 40
        truth = np.zeros((height, width), np.int64)
        truth[8:22, 10:30] = 1 + number % 2
        colour = np.array([[40, 40, 40], [200, 60, 30], [20, 160, 220]], np.uint8)[truth]
        image = np.clip(colour + rng.normal(0, 4, colour.shape), 0, 255).astype(np.uint8)
        logits = np.eye(3, dtype=np.float32)[truth].transpose(2, 0, 1) + rng.normal(0, 1, (3, height, width))
        logits = torch.from_numpy(logits.astype(np.float32))
        truth[0] = 255
        images.append(torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1))))  # BGR
        samples.append(
            {
                "pred_sem_seg": {"data": logits.argmax(0, keepdim=True)},
                "seg_logits": {"data": logits},
                "gt_sem_seg": {"data": torch.from_numpy(truth)[None]},
                "img_path": f"images/2007_{number:06d}.jpg",
            }
        )
    return {"inputs": images}, samples


def score(metric: IoUMetric, count: int = 7) -> dict[str, float]:
    metric.dataset_meta = {"classes": CLASSES}
    batch, samples = outputs(count)
    for number in range(count):
        metric.process({"inputs": batch["inputs"][number : number + 1]}, samples[number : number + 1])
    return metric.evaluate(count)


def refined_one_by_one(count: int = 7) -> list[np.ndarray]:
    batch, samples = outputs(count)
    return [
        refine_probabilities(
            np.array(image.numpy()[::-1].transpose(1, 2, 0), order="C"),
            sample["seg_logits"]["data"].softmax(0).numpy(),
            CrfConfig(**CRF),
        )[0]
        for image, sample in zip(batch["inputs"], samples, strict=True)
    ]


def test_without_a_crf_scores_equal_iou_metric():
    assert score(CrfIoUMetric()) == score(IoUMetric())


def test_with_a_crf_scores_equal_iou_metric_of_refined_masks():
    metric = IoUMetric()
    metric.dataset_meta = {"classes": CLASSES}
    _, samples = outputs(7)
    for sample, labels in zip(samples, refined_one_by_one(), strict=True):
        metric.process({}, [{**sample, "pred_sem_seg": {"data": torch.from_numpy(labels)[None]}}])
    expected = metric.evaluate(7)
    found = score(CrfIoUMetric(crf=CRF, workers=2))
    assert found == expected
    assert found["mIoU"] > score(CrfIoUMetric())["mIoU"] + 5


def test_the_torch_engine_needs_no_workers():
    metric = CrfIoUMetric(crf={**CRF, "engine": "torch"})
    assert score(metric) == score(CrfIoUMetric(crf=CRF, workers=1))
    assert metric.crf_fields()["engine"] == "torch"
    assert metric._pool is None


def test_few_images_are_queued():
    metric = CrfIoUMetric(crf=CRF, workers=1)
    metric.dataset_meta = {"classes": CLASSES}
    batch, samples = outputs(7)
    for number in range(7):
        metric.process({"inputs": batch["inputs"][number : number + 1]}, samples[number : number + 1])
        assert len(metric._pending) <= 2
    assert len(metric.results) == 5
    metric.evaluate(7)


def test_it_can_be_used_again_after_an_evaluation():
    metric = CrfIoUMetric(crf=CRF, workers=1)
    assert score(metric, 3) == score(metric, 3)


def test_predictions_are_palette_pngs_in_voc_colours(tmp_path):
    score(CrfIoUMetric(crf=CRF, workers=2, output_dir=str(tmp_path)))
    for number, labels in enumerate(refined_one_by_one()):
        image = Image.open(tmp_path / f"2007_{number:06d}.png")
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), labels)
        assert image.getpalette()[: 3 * 21] == voc_palette()[:21].ravel().tolist()


@pytest.mark.parametrize("crf", [None, CRF])
def test_without_background_written_labels_are_those_of_masks(tmp_path, crf):
    """0 is no class of the network's then, but in a mask it says that there is no label."""
    batch, samples = outputs(2)
    for sample in samples:
        sample["reduce_zero_label"] = True
    metric = CrfIoUMetric(crf=crf, workers=1, output_dir=str(tmp_path))
    metric.dataset_meta = {"classes": CLASSES}
    metric.process(batch, samples)
    metric.evaluate(2)
    expected = refined_one_by_one(2) if crf else [sample["pred_sem_seg"]["data"][0].numpy() for sample in samples]
    for number, labels in enumerate(expected):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"2007_{number:06d}.png")), labels + 1)


def test_without_ground_truth_only_predictions_are_written(tmp_path):
    metric = CrfIoUMetric(output_dir=str(tmp_path), format_only=True)
    metric.dataset_meta = {"classes": CLASSES}
    batch, samples = outputs(2)
    for sample in samples:
        del sample["gt_sem_seg"]
    metric.process(batch, samples)
    assert metric.evaluate(2) == {}
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["2007_000000.png", "2007_000001.png"]


def test_a_resized_image_is_refused_for_the_crf():
    metric = CrfIoUMetric(crf=CRF, workers=1)
    batch, samples = outputs(1)
    batch["inputs"][0] = batch["inputs"][0][:, ::2]
    with pytest.raises(SettingError, match=r"images/2007_000000.jpg.*remove Resize from it"):
        metric.process(batch, samples)


@pytest.mark.parametrize("engine", ["pydensecrf", "torch"])
def test_a_crf_failure_is_reported_and_other_images_are_scored(tmp_path, engine):
    """One image's logits are no numbers; with the engine torch another has a lattice that overflows."""
    settings = {**CRF, "engine": engine}
    if engine == "torch":
        settings["bilateral_sxy"] = 1e-7
    batch, samples = outputs(4)
    samples[2]["seg_logits"]["data"][0, 3, 3] = float("nan")
    metric = CrfIoUMetric(crf=settings, workers=1, output_dir=str(tmp_path))
    metric.dataset_meta = {"classes": CLASSES}
    metric.process(batch, samples)
    found = metric.evaluate(4)
    reason = "DenseCRF: the logits are not finite; the training diverged"
    assert metric.failures["2007_000002"] == reason
    if engine == "torch":
        assert found == {}
        assert len(metric.failures) == 4
        return
    assert len(metric.failures) == 1
    assert sorted(path.stem for path in tmp_path.glob("[!.]*")) == ["2007_000000", "2007_000001", "2007_000003"]
    expected = IoUMetric()
    expected.dataset_meta = {"classes": CLASSES}
    for number, (sample, labels) in enumerate(zip(samples, refined_one_by_one(4), strict=True)):
        if number != 2:
            expected.process({}, [{**sample, "pred_sem_seg": {"data": torch.from_numpy(labels)[None]}}])
    assert found == expected.evaluate(3)
    metric.process(*outputs(1))
    metric.evaluate(1)
    assert metric.failures == {}


@pytest.mark.parametrize(
    ("crf", "message"),
    [
        ({"sxy": 3}, "no setting sxy; it has iterations"),
        ({"ignore_below": 0.9}, "no setting ignore_below"),
        ({"iterations": 0}, "crf=None"),
    ],
)
def test_an_invalid_crf_is_named(crf, message):
    with pytest.raises(SettingError, match=message):
        CrfIoUMetric(crf=crf)
