"""What a command was pointed at and does not take, counted by reason."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

_SINGULAR = {"files": "file", "entries": "entry"}


@dataclass(frozen=True)
class LeftOut:
    """Inputs that were seen and passed over by rule, which are not failures.

    Attributes:
        reasons: how many inputs by reason; a reason is a few words that follow the count, with the remedy where there
            is one, such as `.heic (pip install pillow-heif)`.
        what: is counted, `files` or the `entries` of a file.
    """

    reasons: Mapping[str, int] = field(default_factory=dict)
    what: str = "files"

    def __add__(self, other: "LeftOut") -> "LeftOut":
        what = other.what if not self.total else self.what
        return LeftOut(dict(Counter(self.reasons) + Counter(other.reasons)), what)

    @property
    def total(self) -> int:
        return sum(self.reasons.values())

    def __str__(self) -> str:
        """One line: `7 files left out: 4 hidden, 2 .heic (pip install pillow-heif), 1 .txt`; empty for none."""
        if not self.total:
            return ""
        most_first = sorted(self.reasons.items(), key=lambda item: (-item[1], item[0]))
        noun = _SINGULAR.get(self.what, self.what) if self.total == 1 else self.what
        return f"{self.total:,} {noun} left out: {', '.join(f'{count:,} {reason}' for reason, count in most_first)}"
