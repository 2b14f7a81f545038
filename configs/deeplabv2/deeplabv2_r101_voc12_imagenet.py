# DeepLabV2-R101 on VOC pseudo-masks from ImageNet weights, with balanced cross-entropy.
#   pseudolabel train deeplabv2_r101_voc12_imagenet
#   pseudolabel test deeplabv2_r101_voc12_imagenet work_dirs/deeplabv2_r101_voc12_imagenet/iter_20000.pth
# Any setting can be overridden: --cfg-options train_dataloader.batch_size=5 (on two processes)
_base_ = ["./voc12.py"]
model = dict(
    backbone=dict(
        init_cfg=dict(
            type="Pretrained", checkpoint="weights:https://download.pytorch.org/models/resnet101-63fe2227.pth"
        )
    ),
    decode_head=dict(loss_decode=dict(_delete_=True, type="BalancedCrossEntropyLoss")),
)
optim_wrapper = dict(optimizer=dict(lr=2e-4))
