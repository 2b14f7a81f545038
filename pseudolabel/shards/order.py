"""Which masks of a run to look at first."""

import heapq
import random
from collections.abc import Sequence
from operator import itemgetter

from pseudolabel.errors import ShardError
from pseudolabel.io.folder import Folder
from pseudolabel.records import Order
from pseudolabel.shards.scores import read_confidences


def choose_keys(masks: Folder, count: int, order: Order) -> Sequence[str]:
    """The keys of at most `count` masks, in their order; none where they are the first ones.

    Random keys are the same at each call.

    Raises:
        ShardError: if the masks have no confidence.
    """
    if order == "first":
        return ()
    ranked = ((key, value) for key, value in read_confidences(masks) if value is not None)
    if order == "random":
        known = [key for key, _ in ranked]
        chosen = random.Random(0).sample(known, min(count, len(known)))
    else:
        pick = heapq.nsmallest if order == "worst" else heapq.nlargest
        chosen = [key for key, _ in pick(count, ranked, key=itemgetter(1))]
    if not chosen:
        raise ShardError(f"no mask in '{masks.path}' has a confidence, so none is {order}; use `order` first")
    return chosen
