"""The summary of a finished job: the last lines of a command, and `summary.json`."""

import json
import shlex
from dataclasses import asdict, dataclass, field

from pseudolabel.errors import FAILED_SAMPLES_EXIT
from pseudolabel.io.left_out import LeftOut
from pseudolabel.io.reasons import reason_lines
from pseudolabel.io.terminal import escaped
from pseudolabel.shards.ledger import SKIPPED

OK = "ok"


@dataclass(frozen=True)
class Summary:
    """Counts of a finished job.

    Attributes:
        kind: what the job wrote, such as `cams`.
        out: the output folder.
        samples: number of samples in the shards.
        statuses: number of listed samples by status; `ok` are those in the shards.
        shards: number of shards.
        seconds: since this process opened the job; where a run found all done, those of the run that did it.
        samples_per_second: all ranks of this run together.
        left_out: number of files that the source left out, by reason.
        first_failures: the first failures and skipped samples of each status, as `key: message`.
    """

    kind: str
    out: str
    samples: int
    statuses: dict[str, int]
    shards: int
    seconds: float
    samples_per_second: float
    left_out: dict[str, int] = field(default_factory=dict)
    first_failures: dict[str, list[str]] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        return sum(count for status, count in self.statuses.items() if status not in (OK, SKIPPED))

    @property
    def exit_status(self) -> int:
        """0 if every sample was done or left out by choice and at least one was done, else `FAILED_SAMPLES_EXIT`."""
        return FAILED_SAMPLES_EXIT if self.failed or not self.samples else 0

    def lines(self) -> list[str]:
        """The last lines of a command: the counts as JSON, then messages."""
        fields = {name: value for name, value in asdict(self).items() if name != "first_failures"}
        lines = [escaped(json.dumps(fields, ensure_ascii=False))]
        if self.left_out:
            lines.append(escaped(str(LeftOut(self.left_out))))
        unfinished = {status: count for status, count in self.statuses.items() if status != OK}
        if self.samples:
            unfinished.pop(SKIPPED, None)
        return [*lines, *reason_lines(unfinished, self.first_failures), escaped(self._last_line())]

    def _last_line(self) -> str:
        skipped = self.statuses.get(SKIPPED, 0)
        left_out = f", {skipped:,} without labels left out" if skipped else ""
        listing = f"pseudolabel failures {shlex.quote(self.out)}"
        if not self.samples:
            return (
                f"{self.kind}: none of {sum(self.statuses.values()):,} samples was done; '{listing}' lists why. Fix "
                "that and add `retry_failed`, or run again with other settings: the folder is free for them."
            )
        if self.failed:
            return (
                f"{self.kind}: {self.samples} samples done, {self.failed} failed{left_out}; '{listing}' lists "
                "them. Fix them and add `retry_failed`."
            )
        return f"{self.kind}: all {self.samples} samples done{left_out} -> {self.out}"
