"""Scores of attention layers, added up over images: localisation of cross-attention, cohesion of self-attention."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from pseudolabel.evaluation.affinity import Cohesion, passes, perfect_affinity, squared_rows
from pseudolabel.evaluation.probe_report import AFFINITIES, PASSES
from pseudolabel.evaluation.threshold_sweep import ThresholdSweep
from pseudolabel.score_maps import at_image_size, square

SIDE = 128  # maps are scored on a square of this side: attention has at most 64 positions per side


class Sweeps:
    """A threshold sweep by name, all of the same classes."""

    def __init__(self, classes: int) -> None:
        self._sweeps: dict[object, ThresholdSweep] = defaultdict(lambda: ThresholdSweep.empty(classes))

    def add(self, name: object, truth: np.ndarray, maps: torch.Tensor, classes: tuple[int, ...]) -> None:
        """Count an image's maps, floating (C, n), against uint8 (SIDE, SIDE) truth."""
        self._sweeps[name].add(truth, at_image_size(square(maps), truth.shape), classes)

    def miou(self, name: object) -> float:
        """Mean IoU at the best threshold, in [0, 1]."""
        return self._sweeps[name].oracle()[0]


class CrossScores:
    """Localisation of one cross-attention layer."""

    def __init__(self, classes: int) -> None:
        self._sweeps = Sweeps(classes)
        self._heads = 0

    def add(self, maps: torch.Tensor, truth: np.ndarray, classes: tuple[int, ...]) -> None:
        """Count an image.

        Args:
            maps: float32 (C, heads, n).
            truth: uint8 (H, W) labels.
            classes: the C vocabulary indices.
        """
        scored, self._heads = shrink(truth, SIDE), maps.shape[1]
        self._sweeps.add("mean", scored, maps.mean(1), classes)
        for head in range(self._heads):
            self._sweeps.add(head, scored, maps[:, head], classes)

    def mious(self) -> tuple[float, list[float]]:
        """Mean IoU of the mean over heads, and of each head."""
        return self._sweeps.miou("mean"), [self._sweeps.miou(head) for head in range(self._heads)]


class SelfScores:
    """Cohesion of one self-attention layer, and what it makes of the fused cross-attention maps."""

    def __init__(self, classes: int) -> None:
        self._sweeps = Sweeps(classes)
        self._cohesion: list[Cohesion] = []

    def add(
        self, query: torch.Tensor, key: torch.Tensor, fused: torch.Tensor, truth: np.ndarray, classes: tuple[int, ...]
    ) -> None:
        """Count an image.

        Args:
            query, key: (C, heads, n, d).
            fused: float32 (C, h, w), the maps that self-attention completes.
            truth: uint8 (H, W) labels.
            classes: the C vocabulary indices.
        """
        count, heads, positions, _ = query.shape
        side, scored = int(positions**0.5), shrink(truth, SIDE)
        labels = torch.from_numpy(shrink(truth, side).astype(np.int64)).flatten().to(query.device)
        start = F.interpolate(fused[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0].flatten(1)
        self._cohesion = self._cohesion or [Cohesion() for _ in range(heads)]
        completed: dict[object, list[torch.Tensor]] = defaultdict(list)
        for number in range(count):
            own = self._complete(query[number], key[number], start[number], labels, labels == classes[number])
            for name, values in own.items():
                completed[name].append(values)
        for name, maps in {"start": list(start), **completed}.items():
            self._sweeps.add(name, scored, torch.stack(maps), classes)

    def _complete(
        self, query: torch.Tensor, key: torch.Tensor, start: torch.Tensor, labels: torch.Tensor, inside: torch.Tensor
    ) -> dict[object, torch.Tensor]:
        """One class's map after passes of each head and of each affinity; only two matrices exist at a time."""
        completed: dict[object, torch.Tensor] = {}
        mean = torch.zeros(len(start), len(start), device=start.device)
        for head, (own_query, own_key) in enumerate(zip(query, key, strict=True)):
            attention = ((own_query * own_query.shape[-1] ** -0.5) @ own_key.T).float().softmax(1)
            self._cohesion[head].add(attention, inside)
            completed[head] = attention @ start
            mean += attention / len(query)
        completed |= _numbered(AFFINITIES[0], passes(mean, start, PASSES))
        completed |= _numbered(AFFINITIES[1], passes(squared_rows(mean), start, PASSES))
        return completed | _numbered(AFFINITIES[2], passes(perfect_affinity(labels), start, 1))

    @property
    def cohesion(self) -> tuple[list[float], list[float]]:
        """Mean share and mean lift of each head."""
        means = [head.means() for head in self._cohesion]
        return [share for share, _ in means], [lift for _, lift in means]

    def head_mious(self) -> list[float]:
        """Mean IoU after one pass of each head."""
        return [self._sweeps.miou(head) for head in range(len(self._cohesion))]

    def start(self) -> float:
        """Mean IoU of the fused map at this resolution."""
        return self._sweeps.miou("start")

    def passes(self) -> dict[str, list[float]]:
        """Mean IoU after each number of passes, by affinity."""
        counts = {name: 1 if name == "perfect" else PASSES for name in AFFINITIES}
        return {name: [self._sweeps.miou((name, k + 1)) for k in range(count)] for name, count in counts.items()}


def _numbered(name: str, maps: Sequence[torch.Tensor]) -> dict[object, torch.Tensor]:
    return {(name, number): values for number, values in enumerate(maps, 1)}


def shrink(labels: np.ndarray, side: int) -> np.ndarray:
    """Labels stretched to a square by taking the nearest: uint8 (side, side)."""
    return np.asarray(Image.fromarray(labels).resize((side, side), Image.Resampling.NEAREST))
