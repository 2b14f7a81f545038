"""Several scales in training and testing against a plain reference of the same recipe."""

import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

import pseudolabel_train.register  # noqa: F401
from tests.plain.deeplab import prediction, training_loss

SCALES = (1.0, 0.75, 0.5)
SIZE = (65, 97)


def build(**changes):
    torch.manual_seed(0)
    model = MODELS.build(
        Config(
            {
                "type": "MultiScaleSegmentor",
                "backbone": {
                    "type": "ResNet",
                    "depth": 18,
                    "stem_channels": 8,
                    "base_channels": 8,
                    "strides": (1, 2, 1, 1),
                    "dilations": (1, 1, 2, 4),
                    "out_indices": (2, 3),
                    "norm_eval": True,
                },
                "decode_head": {
                    "type": "DeepLabV2Head",
                    "in_channels": 64,
                    "num_classes": 4,
                    "init_std": 0.3,
                    "loss_decode": {"type": "CrossEntropyLoss", "avg_non_ignore": True},
                },
                "train_cfg": {"scales": SCALES},
                "test_cfg": {"mode": "whole", "scales": SCALES},
                **changes,
            }
        )
    )
    model.init_weights()
    return model.train()


def batch() -> tuple[torch.Tensor, torch.Tensor, list[SegDataSample]]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 3, *SIZE, generator=generator)
    labels = torch.randint(0, 4, (2, 9, 13), generator=generator).repeat_interleave(8, 1).repeat_interleave(8, 2)
    labels = labels[:, : SIZE[0], : SIZE[1]].clone()
    labels[:, 20:30, 40:60] = 255
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label[None])) for label in labels]
    for sample in samples:
        sample.set_metainfo({"img_shape": SIZE, "ori_shape": SIZE})
    return images, labels, samples


def network_of(model):
    return lambda images: model.decode_head(model.backbone(images))


def total(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    return sum(value for name, value in losses.items() if "loss" in name)


def test_the_training_loss_equals_a_plain_version():
    model = build()
    images, labels, samples = batch()
    expected = training_loss(network_of(model), images, labels, SCALES)
    losses = model.loss(images, samples)
    torch.testing.assert_close(total(losses), expected, rtol=1e-5, atol=1e-5)
    assert set(losses) == {*(f"decode.{name}.loss_ce" for name in (*SCALES, "max")), "decode.max.acc_seg"}


def test_gradients_equal_a_plain_version():
    model = build()
    images, labels, samples = batch()
    training_loss(network_of(model), images, labels, SCALES).backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    total(model.loss(images, samples)).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("train_cfg", [{}, None])
def test_one_scale_has_one_loss(train_cfg):
    images, _, samples = batch()
    losses = build(train_cfg=train_cfg).loss(images, samples)
    assert set(losses) == {"decode.1.0.loss_ce", "decode.1.0.acc_seg"}


@pytest.mark.parametrize("flip", [False, True])
def test_the_prediction_equals_a_plain_version(flip):
    model = build(test_cfg={"mode": "whole", "scales": SCALES, "flip": flip}).eval()
    images, _, samples = batch()
    with torch.no_grad():
        expected = prediction(network_of(model), images, SCALES, flip)
        found = model.predict(images, samples)
    for sample, logits in zip(found, expected, strict=True):
        torch.testing.assert_close(sample.seg_logits.data, logits, rtol=1e-5, atol=1e-5)
        assert torch.equal(sample.pred_sem_seg.data[0], logits.argmax(0))


def test_a_mirrored_image_gives_the_mirrored_prediction_with_flip():
    model = build(test_cfg={"mode": "whole", "scales": (1.0,), "flip": True}).eval()
    images, _, samples = batch()
    with torch.no_grad():
        there = model.encode_decode(images, [sample.metainfo for sample in samples])
        back = model.encode_decode(images.flip(3), [sample.metainfo for sample in samples]).flip(3)
    torch.testing.assert_close(there, back, rtol=1e-4, atol=1e-4)


def test_the_largest_logit_differs_from_the_mean_of_probabilities():
    """What MMSegmentation's SegTTAModel would give; the two differ on a good part of the pixels of an untrained net."""
    model = build().eval()
    images, _, _ = batch()
    network = network_of(model)
    with torch.no_grad():
        views = [prediction(network, images, (scale,), flip=False).softmax(1) for scale in SCALES]
        largest = prediction(network, images, SCALES, flip=False)
    assert (torch.stack(views).mean(0).argmax(1) != largest.argmax(1)).float().mean() > 0.01


def test_a_stock_head_with_an_auxiliary_one_trains_at_several_scales():
    head = {"type": "FCNHead", "channels": 8, "num_convs": 1, "num_classes": 4, "concat_input": False}
    model = build(
        decode_head={**head, "in_channels": 64, "in_index": 1},
        auxiliary_head={**head, "in_channels": 32, "in_index": 0, "loss_decode": {"type": "CrossEntropyLoss"}},
    )
    images, _, samples = batch()
    losses = model.loss(images, samples)
    assert {"aux.loss_ce", "decode.max.loss_ce", "decode.0.5.loss_ce"} <= set(losses)
    total(losses).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_bfloat16_gives_nearly_the_same_loss_and_finite_logits():
    model = build()
    images, _, samples = batch()
    expected = total(model.loss(images, samples))
    with torch.autocast("cpu", torch.bfloat16):
        found = total(model.loss(images, samples))
        logits = model.encode_decode(images, [sample.metainfo for sample in samples])
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=0.02)
    assert torch.isfinite(logits).all()


def test_labels_are_sampled_at_the_centre_of_their_cells():
    """Nearest neighbour that rounds down would shift all labels by half a cell, four pixels at output stride 8."""
    from pseudolabel_train.segmentor import _shrink_labels

    labels = torch.arange(64).reshape(1, 8, 8)
    (small,) = _shrink_labels([SegDataSample(gt_sem_seg=PixelData(data=labels))], torch.Size((2, 2)))
    assert small.gt_sem_seg.data[0].tolist() == [[18, 22], [50, 54]]
    assert small.gt_sem_seg.data.dtype == torch.int64
