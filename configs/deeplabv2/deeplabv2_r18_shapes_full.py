# The fully supervised ceiling of deeplabv2_r18_shapes: the same recipe on the exact masks of the train split.
#   pseudolabel train deeplabv2_r18_shapes_full
_base_ = ["./deeplabv2_r18_shapes.py"]
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="ImageListDataset",
        vocabulary="shapes",
        data_root={{_base_.data_root}},
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
        ann_file="ImageSets/Segmentation/train.txt",
        pipeline={{_base_.full_supervision_pipeline}},
    )
)
