"""Importing this module registers all parts of the package with MMSegmentation, for configs to name them."""

import io
import warnings
from contextlib import redirect_stdout

# MMSegmentation says on import which of its optional parts are missing; none of them is used here.
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
    pictures,
    report,
    segmentor,
    shard_dataset,
    weights,
)

__all__ = [
    "backbone",
    "head",
    "image_list_dataset",
    "loading",
    "loss",
    "metric",
    "pictures",
    "report",
    "segmentor",
    "shard_dataset",
    "weights",
]
