"""The residual network of DeepLabV2's released weights and code, whose pooling rounds its output size up."""

from mmseg.models.backbones import ResNet
from mmseg.registry import MODELS


@MODELS.register_module()
class DeepLabResNet(ResNet):
    """MMSegmentation's `ResNet`, but the stem's pooling rounds its output size up (`ceil_mode=True`).

    Caffe does the same, and so do the DeepLab models, their COCO weights and deeplab-pytorch. At output stride 8, an
    image of 375 x 500 has logits of 48 x 63; with `ResNet` they have 47 x 63 and other positions in the image. The
    parameters and their names are those of `ResNet`.
    """

    def _make_stem_layer(self, in_channels: int, stem_channels: int) -> None:
        super()._make_stem_layer(in_channels, stem_channels)
        self.maxpool.ceil_mode = True
