"""Which of the listed images a score is of, and what is to be known before it is believed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pseudolabel.io.left_out import LeftOut
from pseudolabel.io.reasons import first_by_reason, reason_lines
from pseudolabel.io.terminal import escaped

ADJUSTED = {
    "mask_trained": "made with a mask-trained model's masks (refine.regions): not from image-level labels alone",
    "segments": "adjusted by segments of attention (refine.regions)",
}
NAMED = 3  # images of one kind that a line names


@dataclass(frozen=True)
class Scope:
    """What was scored and what was not.

    Attributes:
        listed: number of images in the source's list.
        not_scored: reason and message of those that were not scored, by key.
        unlisted: predictions that are of no listed image.
        left_out: what else was in the folder of predictions.
        warnings: what makes the scores say less than they seem to.
        is_empty: whether the ground truth holds no class, so that the scores say nothing.
        regions: what adjusted the masks (`refine.regions`): `mask_trained` or `segments`; empty for nothing.
    """

    listed: int
    not_scored: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    unlisted: Sequence[str] = ()
    left_out: LeftOut = field(default_factory=LeftOut)
    warnings: Sequence[str] = ()
    is_empty: bool = False
    regions: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether every listed image was scored, against ground truth that holds a class."""
        return not self.not_scored and not self.is_empty

    def lines(self) -> list[str]:
        """What is to be printed beside the scores; nothing where all is well."""
        lines = [ADJUSTED[self.regions]] if self.regions else []
        lines += [str(self.left_out)] if self.left_out.total else []
        if self.unlisted:
            count = len(self.unlisted)
            are = "predictions are" if count > 1 else "prediction is"
            lines.append(f"{count:,} {are} of no listed image: {_name(self.unlisted)}")
        if self.not_scored:
            lines.append(f"{len(self.not_scored):,} of {self.listed:,} images not scored: {'; '.join(self._named())}")
            lines += reason_lines(self.counts(), first_by_reason(self.not_scored.values()))
        return [escaped(line) for line in [*lines, *(f"warning: {warning}" for warning in self.warnings)]]

    def _named(self) -> list[str]:
        """`no prediction for 'a', 'b', 'c' and 7 more`, and so on for each reason, the most frequent first."""
        keys: dict[str, list[str]] = {}
        for key, (reason, _) in self.not_scored.items():
            keys.setdefault(reason, []).append(key)
        most_first = sorted(keys.items(), key=lambda item: (-len(item[1]), item[0]))
        return [f"{reason} for {_name(names)}" for reason, names in most_first]

    def counts(self) -> dict[str, int]:
        """How many images were not scored, by reason."""
        return dict(Counter(reason for reason, _ in self.not_scored.values()))

    def to_dict(self) -> dict[str, Any]:
        """For metrics.json."""
        return {
            "listed": self.listed,
            "not_scored": len(self.not_scored),
            "reasons": self.counts(),
            "failures": {key: {"status": status, "message": text} for key, (status, text) in self.not_scored.items()},
            "unlisted": len(self.unlisted),
            "warnings": list(self.warnings),
            **({"regions": self.regions} if self.regions else {}),
        }


def _name(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(f"'{name}'" for name in names[:NAMED]) + more
