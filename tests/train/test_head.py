"""DeepLabV2's head: the sum of its branches, its initial weights, and nothing that distributed training would miss."""

import pytest
import torch
import torch.nn.functional as F

from pseudolabel_train.head import DeepLabV2Head


@pytest.fixture
def head() -> DeepLabV2Head:
    torch.manual_seed(0)
    head = DeepLabV2Head(in_channels=16, num_classes=5, dilations=(1, 2, 3, 4))
    head.init_weights()
    return head


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(2, 16, 11, 9, generator=torch.Generator().manual_seed(1))


def test_logits_are_the_sum_of_four_dilated_convolutions(head, features):
    expected = sum(
        F.conv2d(features, branch.weight, branch.bias, padding=dilation, dilation=dilation)
        for dilation, branch in zip((1, 2, 3, 4), head.branches, strict=True)
    )
    torch.testing.assert_close(head([features]), expected)


def test_the_recipe_has_dilations_of_output_stride_8():
    branches = DeepLabV2Head(in_channels=8, num_classes=3).branches
    assert [branch.dilation for branch in branches] == [(6, 6), (12, 12), (18, 18), (24, 24)]
    assert [branch.padding for branch in branches] == [(6, 6), (12, 12), (18, 18), (24, 24)]


@pytest.mark.parametrize("branch", range(4))
def test_every_branch_matters(head, features, branch):
    whole = head([features])
    with torch.no_grad():
        head.branches[branch].weight.zero_()
    assert (head([features]) - whole).abs().mean() > 1e-3


def test_weights_start_normal_and_biases_at_zero():
    torch.manual_seed(0)
    head = DeepLabV2Head(in_channels=512, num_classes=21)
    head.init_weights()
    for branch in head.branches:
        assert float(branch.weight.detach().std()) == pytest.approx(0.01, rel=0.02)
        assert float(branch.weight.detach().mean()) == pytest.approx(0, abs=2e-4)
        assert not branch.bias.any()
    # Four biases of different starts would only add up to one; all parameters are the branches'.
    assert {name.partition(".")[0] for name, _ in head.named_parameters()} == {"branches"}


def test_every_parameter_gets_a_gradient(head, features):
    head([features]).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())
