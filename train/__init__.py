"""Training segmenters on pseudo-mask shards with MMSegmentation; installed as `pseudolabel_train`."""
