"""Names of the tables, apart from their rows, so that the command line loads nothing else."""

from typing import Literal

TableName = Literal[
    "diffsegmenter-1",
    "diffsegmenter-2",
    "diffsegmenter-4",
    "diffsegmenter-5",
    "diffseg-1",
    "diffseg-2",
    "diffseg-ablations",
    "freesegdiff-1",
    "freesegdiff-2",
    "freesegdiff-3",
    "freesegdiff-4",
]
