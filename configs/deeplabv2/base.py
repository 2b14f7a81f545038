# DeepLabV2-R101 as the weakly-supervised literature trains it; docs/training.md compares it with other code.
# Data sets are added by the configs that inherit from this one.
custom_imports = dict(imports=["pseudolabel_train.register"], allow_failed_imports=False)
default_scope = "mmseg"
crop_size = (321, 321)

model = dict(
    type="MultiScaleSegmentor",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size=crop_size,
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(
        type="DeepLabResNet",  # ResNet whose stem pools with ceil_mode, as the released weights were trained
        depth=101,
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        out_indices=(3,),
        norm_cfg=dict(type="BN", requires_grad=False),
        norm_eval=True,
    ),
    decode_head=dict(
        type="DeepLabV2Head",
        in_channels=2048,
        dilations=(6, 12, 18, 24),
        num_classes=21,
        # Without avg_non_ignore the mean would be taken over ignored pixels, too.
        loss_decode=dict(type="CrossEntropyLoss", avg_non_ignore=True),
    ),
    train_cfg=dict(scales=(1.0, 0.75, 0.5)),
    test_cfg=dict(mode="whole", scales=(1.0, 0.75, 0.5), flip=False),
)

augmentation = [
    dict(
        type="RandomChoice",
        transforms=[
            [dict(type="Resize", scale_factor=scale, keep_ratio=True)] for scale in (0.5, 0.75, 1.0, 1.25, 1.5)
        ],
    ),
    dict(type="RandomCrop", crop_size=crop_size),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
train_pipeline = [dict(type="LoadShardSample"), *augmentation]
full_supervision_pipeline = [dict(type="LoadImageFromFile"), dict(type="LoadMask"), *augmentation]
test_pipeline = [dict(type="LoadImageFromFile"), dict(type="LoadMask"), dict(type="PackSegInputs")]

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=2.5e-4, momentum=0.9, weight_decay=5e-4),
    # The longest key that occurs in a parameter's name decides.
    paramwise_cfg=dict(
        custom_keys={
            "decode_head": dict(lr_mult=10),
            **{f"decode_head.branches.{branch}.bias": dict(lr_mult=20, decay_mult=0) for branch in range(4)},
        }
    ),
    accumulative_counts=1,
)
param_scheduler = [dict(type="PolyLR", power=0.9, eta_min=0, begin=0, end=20000, by_epoch=False)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=20000, val_interval=2000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=2000, max_keep_ckpts=2),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    visualization=dict(type="FigureHook", interval=100),
)
custom_hooks = [dict(type="ReportHook")]
env_cfg = dict(cudnn_benchmark=True, mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0))
visualizer = dict(
    type="SegLocalVisualizer",
    vis_backends=[dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")],
    name="visualizer",
)
log_processor = dict(by_epoch=False)
log_level = "INFO"
load_from = None
resume = False
randomness = dict(seed=0)
