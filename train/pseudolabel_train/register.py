"""Importing this module registers the parts of this package with MMSegmentation, so that configs can name them."""

import io
import warnings
from contextlib import redirect_stdout

# On import, MMSegmentation prints which of its optional parts are missing; none of them is used here.
with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
    warnings.simplefilter("ignore")
    import mmseg.datasets
    import mmseg.models  # noqa: F401

from pseudolabel_train import (
    backbone,
    head,
    image_list_dataset,
    loading,
    loss,
    metric,
    report,
    segmentor,
    shard_dataset,
    visualization,
    weights,
)

__all__ = [
    "backbone",
    "head",
    "image_list_dataset",
    "loading",
    "loss",
    "metric",
    "report",
    "segmentor",
    "shard_dataset",
    "visualization",
    "weights",
]
