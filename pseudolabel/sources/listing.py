"""What a kind of source makes of its settings: the list of entries and the reader of their masks."""

from dataclasses import dataclass, field

from pseudolabel.io.left_out import LeftOut
from pseudolabel.sources.entry import Entry
from pseudolabel.sources.masks import MaskReader


@dataclass(frozen=True)
class Listing:
    """All images of a source in any order, nothing of them opened.

    Attributes:
        entries: one per image.
        masks: reads an entry's ground-truth mask; None where the whole source has no masks.
        left_out: what the source was pointed at and does not take.
        no_labels: why none of the labels that come with the images can be used; empty where some can.
    """

    entries: list[Entry]
    masks: MaskReader | None = None
    left_out: LeftOut = field(default_factory=LeftOut)
    no_labels: str = ""
