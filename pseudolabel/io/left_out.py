"""What a command was pointed at and does not take, counted by reason."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

_NAMED = ("object(s)", "image(s)")  # begin reasons of what is listed in a file and no file itself


@dataclass(frozen=True)
class LeftOut:
    """Inputs that were seen and passed over by rule, which are not failures.

    Attributes:
        reasons: how many inputs by reason; a reason is a few words that follow the count, with the remedy where there
            is one, such as `.heic (pip install pillow-heif)`.
    """

    reasons: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: "LeftOut") -> "LeftOut":
        return LeftOut(dict(Counter(self.reasons) + Counter(other.reasons)))

    @property
    def total(self) -> int:
        return sum(self.reasons.values())

    def __str__(self) -> str:
        """One line: `7 files left out: 4 hidden, 2 .heic (pip install pillow-heif), 1 .txt`; empty for none."""
        if not self.total:
            return ""
        most_first = sorted(self.reasons.items(), key=lambda item: (-item[1], item[0]))
        is_named = all(reason.startswith(_NAMED) for reason in self.reasons)
        noun = "" if is_named else " file" if self.total == 1 else " files"
        return f"{self.total:,}{noun} left out: {', '.join(f'{count:,} {reason}' for reason, count in most_first)}"
