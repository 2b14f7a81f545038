"""Inputs that a command skips, counted by reason."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

_NAMED = ("object(s)", "image(s)")  # beginnings of reasons that count entries in a file, not files


@dataclass(frozen=True)
class LeftOut:
    """Inputs that were found and skipped by rule; they are not failures.

    Attributes:
        reasons: number of inputs by reason. A reason is a few words that follow the number, with a hint if the user can
            do something, such as `.heic (pip install pillow-heif)`.
    """

    reasons: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: "LeftOut") -> "LeftOut":
        return LeftOut(dict(Counter(self.reasons) + Counter(other.reasons)))

    @property
    def total(self) -> int:
        return sum(self.reasons.values())

    def __str__(self) -> str:
        """One line: `7 files left out: 4 hidden, 2 .heic (pip install pillow-heif), 1 .txt`; empty if none were."""
        if not self.total:
            return ""
        most_first = sorted(self.reasons.items(), key=lambda item: (-item[1], item[0]))
        is_named = all(reason.startswith(_NAMED) for reason in self.reasons)
        noun = "" if is_named else " file" if self.total == 1 else " files"
        return f"{self.total:,}{noun} left out: {', '.join(f'{count:,} {reason}' for reason, count in most_first)}"
