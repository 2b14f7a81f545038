# Shapes on a CPU in minutes: three stages of a narrow ResNet-18 at output stride 4, from random weights, on
# pseudo-mask shards of the train split.
#   pseudolabel shapes   --out data/shapes --train 300 --val 200
#   pseudolabel generate --config shapes --source.split train --source.path data/shapes --out runs/shapes
#   pseudolabel train    deeplabv2_r18_shapes
# The data set's folder is data/shapes, or the one in the environment variable SHAPES_ROOT.
_base_ = ["./base.py"]
data_root = "{{$SHAPES_ROOT:data/shapes}}"
crop_size = (112, 112)
iterations = 700

model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(
        type="ResNet",
        depth=18,
        num_stages=3,
        out_indices=(2,),
        stem_channels=16,
        base_channels=16,
        strides=(1, 1, 1),
        dilations=(1, 2, 4),
        norm_cfg=dict(requires_grad=True),
        norm_eval=False,
    ),
    decode_head=dict(in_channels=64, dilations=(1, 2, 3, 4), num_classes=7),
)
augmentation = [
    dict(
        type="RandomChoice",
        transforms=[[dict(type="Resize", scale_factor=scale, keep_ratio=True)] for scale in (0.75, 1.0, 1.25)],
    ),
    dict(type="RandomCrop", crop_size=crop_size),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
full_supervision_pipeline = [dict(type="LoadImageFromFile"), dict(type="LoadMask"), *augmentation]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="ShardDataset",
        shards="runs/shapes/masks",
        vocabulary="shapes",
        pipeline=[dict(type="LoadShardSample"), *augmentation],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="ImageListDataset",
        vocabulary="shapes",
        data_root=data_root,
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
        ann_file="ImageSets/Segmentation/val.txt",
        pipeline={{_base_.test_pipeline}},
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="CrfIoUMetric")
test_evaluator = dict(type="CrfIoUMetric", crf=dict(bilateral_sxy=20, bilateral_srgb=13))

# From random weights the head needs no other learning rate than the rest.
optim_wrapper = dict(optimizer=dict(lr=2e-2), paramwise_cfg=dict(_delete_=True))
param_scheduler = [dict(type="PolyLR", power=0.9, eta_min=0, begin=0, end=iterations, by_epoch=False)]
train_cfg = dict(max_iters=iterations, val_interval=iterations)
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=iterations), visualization=dict(interval=50))
visualizer = dict(vis_backends=[dict(type="LocalVisBackend")])
