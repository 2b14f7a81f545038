# Data of PASCAL VOC 2012: pseudo-mask shards of train_aug to train on, ground truth of val to score with.
# The data set's folder is VOCdevkit/VOC2012, or the one in the environment variable VOC_ROOT.
_base_ = ["./base.py"]
data_root = "{{$VOC_ROOT:VOCdevkit/VOC2012}}"

auto_scale_lr = dict(enable=False, base_batch_size=10)  # over all processes; training warns where it comes to another
train_dataloader = dict(
    batch_size=10,  # per process
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="ShardDataset",
        shards="runs/voc12_train_aug/masks",
        vocabulary="voc",
        pipeline={{_base_.train_pipeline}},
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="ImageListDataset",
        vocabulary="voc",
        data_root=data_root,
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
        ann_file="ImageSets/Segmentation/val.txt",
        pipeline={{_base_.test_pipeline}},
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="CrfIoUMetric")
# CrfConfig's defaults are DeepLab's: 10 iterations, Gaussian sxy 1 w 3, bilateral sxy 67 srgb 3 w 4.
test_evaluator = dict(type="CrfIoUMetric", crf=dict())
