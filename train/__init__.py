"""Training segmenters on pseudo-mask shards with MMSegmentation; installed as `pseudolabel_train`.

Importing the package registers its parts, so that a config needs `custom_imports = dict(imports=["pseudolabel_train"])`
and nothing else to name `DeepLabV2Head`, `MultiScaleSegmentor`, `ShardDataset` and the others.
"""

import io
import warnings
from contextlib import redirect_stdout

# MMSegmentation says on import which of its optional parts are missing; none of them is used here.
with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
    warnings.simplefilter("ignore")
    import mmseg.datasets
    import mmseg.models  # noqa: F401

from pseudolabel_train import head, loss, metric, report, segmentor, weights

__all__ = ["head", "loss", "metric", "report", "segmentor", "weights"]
