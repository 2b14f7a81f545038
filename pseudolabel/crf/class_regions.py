"""Class-free masks adjust a pseudo-mask (SEPL, Chen et al. 2023)."""

from collections.abc import Sequence

import numpy as np

from pseudolabel.crf.scores import Decision
from pseudolabel.records import BACKGROUND

INSIDE = 0.5  # a class takes a mask of which more than this share lies in it,
COVERING = 0.85  # or that covers at least this share of it


def take_regions(
    decision: Decision[np.ndarray], masks: Sequence[np.ndarray], classes: Sequence[int]
) -> Decision[np.ndarray]:
    """Labels in which each class is the union of the masks that it takes.

    A class takes a mask of which more than half lies in it, or that covers at least 85 % of it. A mask that several
    classes would take goes to the one it has most pixels of, the smallest label of equals. Where taken masks overlap,
    the smallest is on top, and the earlier of equals. A class's pixels that only other masks cover become background;
    pixels that no mask covers keep their label, and so do background's and ignored ones outside of taken masks. The
    most probable labels decide, also where they were ignored.

    Args:
        decision: DenseCRF's.
        masks: bool (H, W) each; they may overlap.
        classes: vocabulary indices.

    Returns:
        The adjusted decision. The confidence of a pixel whose label changed is what the winner left to the others, if
        that is less than its own: the largest probability that the new label may have had.
    """
    best = decision.best
    counts = np.bincount(best.ravel(), minlength=256)
    taken: list[tuple[int, int, np.ndarray]] = []
    covered = np.zeros(best.shape, bool)
    for mask in masks:
        covered |= mask
        inside = np.bincount(best[mask], minlength=256)
        area = int(inside.sum())
        wins = [
            label
            for label in sorted(classes)
            if inside[label] > INSIDE * area or (inside[label] and inside[label] >= COVERING * counts[label])
        ]
        if wins:
            taken.append((area, max(wins, key=lambda label: (inside[label], -label)), mask))
    now, labels = best.copy(), decision.labels.copy()
    lost = covered & (best != BACKGROUND)
    now[lost] = labels[lost] = BACKGROUND
    taken.reverse()
    taken.sort(key=lambda one: -one[0])  # equals keep this order, and what comes last is on top
    for _, label, mask in taken:
        now[mask] = labels[mask] = label
    left = np.where(now == best, decision.confidence, np.minimum(decision.confidence, 1 - decision.confidence))
    return Decision(labels, left.astype(np.float32), now)
