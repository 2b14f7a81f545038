"""The residual network of DeepLabV2's released weights and code, which pools with a rounded-up size."""

from mmseg.models.backbones import ResNet
from mmseg.registry import MODELS


@MODELS.register_module()
class DeepLabResNet(ResNet):
    """MMSegmentation's `ResNet`, but the stem's pooling rounds its output size up (`ceil_mode=True`).

    Caffe pools so, and with it the DeepLab models, their COCO weights and deeplab-pytorch. An image of 375 x 500 has
    logits of 48 x 63 at output stride 8 where `ResNet` gives 47 x 63, at other places of the image. Parameters and
    their names are `ResNet`'s.
    """

    def _make_stem_layer(self, in_channels: int, stem_channels: int) -> None:
        super()._make_stem_layer(in_channels, stem_channels)
        self.maxpool.ceil_mode = True
