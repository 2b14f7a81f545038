"""Balanced cross-entropy against loops over pixels, and where one side is empty."""

import math

import pytest
import torch

from pseudolabel_train.loss import BalancedCrossEntropyLoss


def by_hand(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The mean over background and the mean over foreground, averaged, one pixel after the other."""
    sides: dict[bool, list[float]] = {True: [], False: []}
    for image, image_labels in zip(logits.tolist(), labels.tolist(), strict=True):
        for row, row_labels in enumerate(image_labels):
            for column, label in enumerate(row_labels):
                if label != 255:
                    scores = [channel[row][column] for channel in image]
                    total = math.log(sum(math.exp(score) for score in scores))
                    sides[label == 0].append(total - scores[label])
    return sum(sum(side) / len(side) for side in sides.values() if side) / 2


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.randint(0, 5, (2, 5, 6), generator=torch.Generator().manual_seed(1)).where(
        torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(2)) < 0.8, torch.tensor(0)
    )


def test_the_loss_equals_a_loop_over_pixels(logits, labels):
    labels[labels == 4] = 255
    assert (labels == 255).any()
    assert float(BalancedCrossEntropyLoss()(logits, labels)) == pytest.approx(by_hand(logits, labels), rel=1e-5)


@pytest.mark.parametrize("label", [0, 2])
def test_only_foreground_or_only_background(logits, label):
    labels = torch.full((2, 5, 6), label)
    assert float(BalancedCrossEntropyLoss()(logits, labels)) == pytest.approx(by_hand(logits, labels), rel=1e-5)


def test_ignored_pixels_change_nothing(logits, labels):
    labels[labels == 4] = 255
    other = logits.clone()
    other[(labels == 255)[:, None].expand_as(logits)] = 50.0
    loss = BalancedCrossEntropyLoss()
    assert float(loss(logits, labels)) == float(loss(other, labels))


def test_an_image_without_labels_is_not_nan(logits):
    logits.requires_grad_()
    loss = BalancedCrossEntropyLoss()(logits, torch.full((2, 5, 6), 255))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not logits.grad.any()


def test_weights_of_pixels_and_of_the_loss(logits, labels):
    labels[labels == 4] = 1
    twice = BalancedCrossEntropyLoss(loss_weight=2.0)(logits, labels)
    weighted = BalancedCrossEntropyLoss()(logits, labels, weight=torch.full((2, 5, 6), 2.0))
    assert float(twice) == pytest.approx(2 * by_hand(logits, labels), rel=1e-5)
    assert float(weighted) == pytest.approx(float(twice), rel=1e-6)
