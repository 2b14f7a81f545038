# DeepLabV2-R101 on VOC pseudo-masks from weights trained on COCO, as deeplab-pytorch trains it.
# These weights, deeplabv1_resnet101-coco.pth, come from deeplab-pytorch's page and are named on the command line:
#   pseudolabel train deeplabv2_r101_voc12_coco --init deeplabv1_resnet101-coco.pth
#   pseudolabel test deeplabv2_r101_voc12_coco work_dirs/deeplabv2_r101_voc12_coco/iter_20000.pth
_base_ = ["./voc12.py"]
model = dict(
    # They were converted from Caffe: BGR in 0..255 less the mean, and strides in the 1x1 convolutions.
    data_preprocessor=dict(mean=[104.008, 116.669, 122.675], std=[1, 1, 1], bgr_to_rgb=False),
    backbone=dict(style="caffe", init_cfg=dict(type="Pretrained", checkpoint="weights:deeplabv1_resnet101-coco.pth")),
)
