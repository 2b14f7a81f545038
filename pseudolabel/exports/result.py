"""How an export ended."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from pseudolabel.errors import FAILED_SAMPLES_EXIT
from pseudolabel.io.reasons import reason_lines
from pseudolabel.io.terminal import escaped


@dataclass(frozen=True)
class ExportResult:
    """Counts of a finished export.

    Attributes:
        folder: where it is.
        samples: number of samples in it.
        splits: number of samples by split; empty where they are not split.
        statuses: number of samples that failed by status.
        left_out: number of samples that were not asked for.
        written: number of samples that this call exported; the others were there.
        seconds: that it took.
        first_failures: the first failures of each status, as `key: message`.
    """

    folder: str
    samples: int
    splits: Mapping[str, int]
    statuses: Mapping[str, int]
    left_out: int
    written: int
    seconds: float
    first_failures: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """Number of samples that could not be exported."""
        return sum(self.statuses.values())

    @property
    def exit_status(self) -> int:
        """0 if every sample that was asked for is in the export and there is at least one, else 3."""
        return FAILED_SAMPLES_EXIT if self.failed or not self.samples else 0

    def lines(self) -> list[str]:
        """The command's result: the counts as JSON in one line."""
        fields = {name: value for name, value in asdict(self).items() if name != "first_failures"}
        return [escaped(json.dumps(fields, ensure_ascii=False))]

    def notes(self) -> list[str]:
        """Failures by reason, the counts in words, and where the export is."""
        splits = ", ".join(f"{count:,} {split}" for split, count in self.splits.items())
        parts = [f"{self.samples:,} samples{f' ({splits})' if splits else ''}"]
        parts += [f"{self.failed:,} failed"] if self.failed else []
        parts += [f"{self.left_out:,} left out"] if self.left_out else []
        last = f"export: {', '.join(parts)} -> {self.folder}"
        return [*reason_lines(self.statuses, self.first_failures), escaped(last)]
