# The fully supervised ceiling of deeplabv2_r101_voc12_coco: the same recipe on the ground-truth masks of train_aug.
#   pseudolabel train deeplabv2_r101_voc12_coco_full
_base_ = ["./deeplabv2_r101_voc12_coco.py"]
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="ImageListDataset",
        vocabulary="voc",
        data_root={{_base_.data_root}},
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClassAug"),
        ann_file="ImageSets/Segmentation/train_aug.txt",
        pipeline={{_base_.full_supervision_pipeline}},
    )
)
