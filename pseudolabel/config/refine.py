"""Settings of the refining stage beyond DenseCRF."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RefineConfig:
    """What adjusts pseudo-masks after DenseCRF.

    Args:
        regions: folder of class-free masks of the images, such as Segment Anything's, or of the segments that
            `segment` wrote: every class takes the masks that lie in it (SEPL); docs/regions.md. Empty for none.
    """

    regions: str = ""
