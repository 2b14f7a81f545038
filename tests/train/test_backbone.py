"""The stem of the VOC configs' networks, beside a plainly written ResNet on an image of VOC's usual size."""

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

import pseudolabel_train.register  # noqa: F401
from pseudolabel_train.config import find_config
from tests.plain.deeplab import prediction, resnet_deeplab_v2
from tests.train.test_configs import VOC

BLOCKS = (3, 4, 23, 3)
WIDTH = 4  # channels of the narrowest block, where the recipe has 64; the sizes of the maps do not depend on it


def build(name: str):
    """The config's network, narrow, with statistics and weights that make every layer count."""
    model = Config.fromfile(find_config(name)).model
    model.backbone.update(base_channels=WIDTH, stem_channels=WIDTH, init_cfg=None)
    model.decode_head.in_channels = 32 * WIDTH
    torch.manual_seed(0)
    network = MODELS.build(model).eval()
    network.init_weights()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.8, 1.2)
    for name, weight in network.named_parameters():
        if name.endswith("bn3.weight"):
            torch.nn.init.constant_(weight, 0.2)
    return network


@pytest.mark.parametrize("name", VOC)
def test_logits_equal_a_plain_resnet_that_rounds_up(name):
    network, images = build(name), torch.randn(1, 3, 375, 500, generator=torch.Generator().manual_seed(1))
    weights, is_caffe = network.state_dict(), "coco" in name

    def plain(inputs: torch.Tensor) -> torch.Tensor:
        return resnet_deeplab_v2(inputs, weights, BLOCKS, stride_in_1x1=is_caffe)

    with torch.inference_mode():
        logits = network.decode_head(network.extract_feat(images))
        expected = plain(images)
        assert logits.shape[-2:] == expected.shape[-2:] == (48, 63)
        assert logits.std() > 1e-3
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)
        metas = [{"img_shape": (375, 500), "ori_shape": (375, 500), "pad_shape": (375, 500)}]
        whole = network.encode_decode(images, metas)
        torch.testing.assert_close(whole, prediction(plain, images, (1.0, 0.75, 0.5), flip=False), rtol=1e-5, atol=1e-6)
