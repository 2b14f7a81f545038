"""The summary of a finished job: the last lines of a command, and `summary.json`."""

import json
import shlex
from dataclasses import asdict, dataclass, field

from pseudolabel.errors import FAILED_SAMPLES_EXIT
from pseudolabel.io.left_out import LeftOut
from pseudolabel.io.reasons import reason_lines
from pseudolabel.io.terminal import escaped
from pseudolabel.shards.ledger import SKIPPED
from pseudolabel.sources.labels import UNKNOWN_CLASS

OK = "ok"
_FIX_LABELS = "Correct the labels (or give a `vocabulary` that has them, and another `out`)"


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
        """The command's result: the counts as JSON in one line."""
        fields = {name: value for name, value in asdict(self).items() if name != "first_failures"}
        return [escaped(json.dumps(fields, ensure_ascii=False))]

    def notes(self, is_last: bool = True) -> list[str]:
        """The counts in words, after the first failures by reason.

        Args:
            is_last: false where the summary of a step that repeats these failures follows, and names them.
        """
        unfinished = {status: count for status, count in self.statuses.items() if status != OK}
        if self.samples:
            unfinished.pop(SKIPPED, None)
        lines = [str(LeftOut(self.left_out))] if self.left_out else []
        lines += reason_lines(unfinished, self.first_failures) if is_last else []
        end = self._fix() if is_last and unfinished else f" -> {self.out}"
        return [escaped(line) for line in [*lines, f"{self.kind}: {self._counts()}{end}"]]

    def _counts(self) -> str:
        skipped = self.statuses.get(SKIPPED, 0)
        left_out = f", {skipped:,} without labels left out" if skipped else ""
        if not self.samples:
            return f"none of {sum(self.statuses.values()):,} samples was done"
        if self.failed:
            return f"{self.samples} samples done, {self.failed} failed{left_out}"
        return f"all {self.samples} samples done{left_out}"

    def _fix(self) -> str:
        listing = f"; 'pseudolabel failures {shlex.quote(self.out)}' lists {'them' if self.samples else 'why'}."
        failed = set(self.statuses) - {OK, SKIPPED}
        fixes = [_FIX_LABELS] if UNKNOWN_CLASS in failed else []
        fixes += ["Fix the others"] if fixes and len(failed) > 1 else [] if fixes else ["Fix them"]
        todo = f"{'. '.join(fixes)} and add `retry_failed`" if failed else "Give labels and run again"
        return f"{listing} {todo}{'' if self.samples else '; the folder is also free for other settings'}."
