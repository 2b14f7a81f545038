"""Summarize failures in a few lines: the number for each reason, and its first messages."""

from collections.abc import Iterable, Mapping, Sequence

from pseudolabel.io.terminal import escaped

FIRST = 2  # messages shown per reason


def first_by_reason(failures: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The first `FIRST` messages of each reason, from (reason, message) pairs."""
    found: dict[str, list[str]] = {}
    for reason, message in failures:
        shown = found.setdefault(reason, [])
        if len(shown) < FIRST:
            shown.append(message)
    return found


def reason_lines(counts: Mapping[str, int], first: Mapping[str, Sequence[str]]) -> list[str]:
    """Lines for each reason, the most frequent first: `  7 missing, such as:`, then its first messages."""
    lines = []
    for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        shown = first.get(reason, [])
        lines.append(f"  {count:,} {escaped(reason)}{', such as' if count > len(shown) else ''}:")
        lines += [f"    {escaped(message)}" for message in shown]
    return lines
