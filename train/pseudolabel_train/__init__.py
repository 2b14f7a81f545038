"""Training segmenters on pseudo-mask shards with MMSegmentation; installed as `pseudolabel_train`.

A config that says `custom_imports = dict(imports=["pseudolabel_train.register"])` can name `DeepLabV2Head`,
`MultiScaleSegmentor`, `ShardDataset` and the others.
"""
