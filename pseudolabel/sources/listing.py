"""What a kind of source makes of its settings: the list of entries and the way to their masks."""

from dataclasses import dataclass

from pseudolabel.sources.entry import Entry
from pseudolabel.sources.masks import MaskLocator


@dataclass(frozen=True)
class Listing:
    """All images of a source in any order, nothing of them opened.

    Attributes:
        entries: one per image.
        mask_of: gives the place of an entry's ground-truth mask, or None where it has none; None where the whole source
            has no masks.
    """

    entries: list[Entry]
    mask_of: MaskLocator | None = None
