"""Which images of mask shards to keep where the least confident ones are left out."""

from array import array
from collections.abc import Sequence

import numpy as np

from pseudolabel.errors import ShardError
from pseudolabel.io.folder import Folder
from pseudolabel.shards.find import folder_of
from pseudolabel.shards.index import ShardIndex
from pseudolabel.shards.scores import SCORES, read_confidences


def most_confident(paths: Sequence[str], indexes: Sequence[ShardIndex], leave_out: float) -> np.ndarray:
    """Positions of the images that stay, in their order; of equally confident ones the first stay.

    Args:
        paths: of the shards.
        indexes: of the same shards.
        leave_out: share of the images, in [0, 1); their number is rounded down.

    Returns:
        int64 (K,), counted over the samples of all shards.

    Raises:
        ShardError: if an image has no confidence.
    """
    folders = {folder_of(path): Folder(folder_of(path)) for path in paths}
    confidences = {name: dict(read_confidences(folder)) for name, folder in folders.items()}
    values: array[float] = array("d")
    for path, index in zip(paths, indexes, strict=True):
        known = confidences[folder_of(path)]
        for number in range(len(index)):
            key = index[number][0]
            value = known.get(key)
            if value is None:
                raise ShardError(
                    f"`leave_out` needs a confidence of each image, and '{key}' of '{path}' has none in "
                    f"'{folder_of(path)}/{SCORES}'; DenseCRF gives one ('pseudolabel refine'), or set `leave_out` 0"
                )
            values.append(value)
    count = len(values) - int(len(values) * leave_out)
    return np.sort(np.argsort(-np.asarray(values), kind="stable")[:count])
