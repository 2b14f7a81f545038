"""Settings of the work's division and of scoring."""

from dataclasses import dataclass


@dataclass(frozen=True)
class WorkConfig:
    """How the work is divided and fed; nothing depends on the number of processes.

    Args:
        unit: samples per work unit; one unit becomes one shard.
        batch: (image, class, timestep) triples per U-Net forward.
        seed: an image's noise is drawn from (seed, key).
        workers: processes per rank that run DenseCRF or scoring; 0 divides all cores among the ranks of a machine.
        loaders: threads per rank that read and decode images ahead of the model.
    """

    unit: int = 256
    batch: int = 16
    seed: int = 0
    workers: int = 0
    loaders: int = 4


@dataclass(frozen=True)
class EvaluateConfig:
    """Scoring against ground truth.

    Args:
        threshold: the fixed background threshold of CAM scores; choose it on images other than the scored ones.
        threshold_chosen_on: the split on which the threshold was chosen, printed beside the score.
        plots: write PNG plots beside the metrics.
    """

    threshold: float = 0.45
    threshold_chosen_on: str = "not chosen (default)"
    plots: bool = True
