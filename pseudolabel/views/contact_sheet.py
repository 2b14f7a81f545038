"""A contact sheet: image, ground truth, class activation maps and masks of samples, one row each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageDraw

from pseudolabel.evaluation.confusion import Confusion
from pseudolabel.records import IGNORE
from pseudolabel.views.font import legible
from pseudolabel.views.overlay import INK, fade, hatching, heat_overlay, legend, mask_overlay
from pseudolabel.vocabulary import Vocabulary

GREY = (112, 117, 122)
RULE = (218, 220, 224)
MARGIN, GUTTER, GAP, BLOCK_GAP = 40, 10, 18, 56
TITLE, TEXT, SMALL = 22, 17, 14
CAPTION, BASELINE = 22, 14  # of the line above a panel: its height and its baseline


@dataclass(frozen=True)
class ContactRow:
    """What the sheet shows of one sample, everything at the image's size.

    Attributes:
        key: the sample's key.
        image: uint8 (H, W, 3), RGB.
        classes: its C vocabulary indices.
        scores: float32 (C, H, W) in [0, 1], or None where there are no class activation maps.
        mask: uint8 (H, W) pseudo-mask, or None.
        truth: uint8 (H, W) ground truth, or None.
        segments: uint8 (H, W) regions without classes, or None.
    """

    key: str
    image: np.ndarray
    classes: tuple[int, ...]
    scores: np.ndarray | None = None
    mask: np.ndarray | None = None
    truth: np.ndarray | None = None
    segments: np.ndarray | None = None


def contact_sheet(
    rows: Sequence[ContactRow],
    vocabulary: Vocabulary,
    out: Path | BinaryIO,
    title: str = "",
    blocks: int = 2,
    cell: int = 220,
) -> None:
    """Draw a PNG with a row for each sample: image, ground truth, class activation maps, pseudo-mask and segments.

    Maps and labels have their classes' colours. A pixel of a map shows the class with the largest score, with the
    score as opacity. Ignored pixels (255) are hatched. Columns without content are left out.

    Args:
        rows: the samples, in reading order down each block.
        vocabulary: names and colours of the classes.
        out: the PNG to write, or a file that takes it.
        title: printed at the top.
        blocks: number of blocks side by side.
        cell: longest side of a panel in pixels; smaller images are enlarged.

    Raises:
        ValueError: if there are no rows, or the arrays of a row differ in size.
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one row")
    columns = _columns(rows)
    height = -(-len(rows) // blocks)
    drawn = [_draw_block(rows[at : at + height], columns, vocabulary, cell) for at in range(0, len(rows), height)]
    width = max(2 * MARGIN + sum(block.width for block in drawn) + BLOCK_GAP * (len(drawn) - 1), 480)
    parts = [_draw_title(title, width - 2 * MARGIN)] if title else []
    parts += [_side_by_side(drawn), _draw_legend(rows, vocabulary, width - 2 * MARGIN)]
    sheet = Image.new("RGB", (width, 2 * MARGIN + sum(part.height for part in parts) + GAP * (len(parts) - 1)), "white")
    y = MARGIN
    for part in parts:
        sheet.paste(part, (MARGIN, y))
        y += part.height + GAP
    sheet.save(out, "PNG")


def _columns(rows: Sequence[ContactRow]) -> list[str]:
    shown = {
        "Image": True,
        "Ground truth": any(row.truth is not None for row in rows),
        "CAM": any(row.scores is not None for row in rows),
        "Pseudo-mask": any(row.mask is not None for row in rows),
        "Segments": any(row.segments is not None for row in rows),
    }
    return [column for column, wanted in shown.items() if wanted]


def _draw_block(rows: Sequence[ContactRow], columns: list[str], vocabulary: Vocabulary, cell: int) -> Image.Image:
    """The column titles, a rule, and the rows below."""
    drawn = [_draw_row(row, columns, vocabulary, cell) for row in rows]
    head = TEXT + 14
    height = head + sum(GAP + row.height for row in drawn)
    block = Image.new("RGB", (len(columns) * (cell + GUTTER) - GUTTER, height), "white")
    draw = ImageDraw.Draw(block)
    for index, column in enumerate(columns):
        draw.text((index * (cell + GUTTER), 0), column, INK, legible(column, TEXT)[1])
    draw.line([(0, head), (block.width, head)], RULE, 2)
    y = head + GAP
    for row in drawn:
        block.paste(row, (0, y))
        y += row.height + GAP
    return block


def _draw_row(row: ContactRow, columns: list[str], vocabulary: Vocabulary, cell: int) -> Image.Image:
    """The panels, each below a caption: the key, the class names, and the pseudo-mask's score."""
    panels = {name: panel for name, panel in _panels(row, vocabulary.palette, cell).items() if name in columns}
    captions = {"Image": _text(row.key, cell), "CAM": _names(row.classes, vocabulary, cell)}
    if row.truth is not None and row.mask is not None:
        confusion = Confusion.empty(len(vocabulary))
        confusion.add(row.truth, row.mask)
        captions["Pseudo-mask"] = _text("" if math.isnan(confusion.miou) else f"mIoU {100 * confusion.miou:.1f}", cell)
    height = next(iter(panels.values())).height
    drawn = Image.new("RGB", (len(columns) * (cell + GUTTER) - GUTTER, CAPTION + height), "white")
    for index, column in enumerate(columns):
        x = index * (cell + GUTTER)
        if column in panels:
            drawn.paste(panels[column], (x, CAPTION))
        if column in captions:
            drawn.paste(captions[column], (x, 0))
    return drawn


def _text(text: str, width: int) -> Image.Image:
    """A line of grey text, cut and ended with dots where it is wider than `width` pixels."""
    drawn, (text, font) = Image.new("RGB", (width, CAPTION), "white"), legible(text, SMALL)
    shown = text
    while shown and font.getlength(shown + "..." * (shown != text)) > width:
        shown = shown[:-1]
    ImageDraw.Draw(drawn).text((0, BASELINE), shown + "..." * (shown != text), GREY, font, anchor="ls")
    return drawn


def _names(classes: tuple[int, ...], vocabulary: Vocabulary, width: int) -> Image.Image:
    """Class names, each after a patch of its colour; `+2` stands for two more that do not fit in `width` pixels."""
    drawn = Image.new("RGB", (width, CAPTION), "white")
    draw, x = ImageDraw.Draw(drawn), 0
    for place, index in enumerate(classes):
        name, font = legible(vocabulary.names[index], SMALL)
        rest = len(classes) - place
        room = width if rest == 1 else width - round(font.getlength(f"+{rest}")) - 4
        if place and x + 15 + font.getlength(name) > room:
            draw.text((x, BASELINE), f"+{rest}", GREY, font, anchor="ls")
            break
        draw.rectangle((x, BASELINE - 10, x + 9, BASELINE - 1), tuple(vocabulary.palette[index].tolist()))
        draw.text((x + 15, BASELINE), name, INK, font, anchor="ls")
        x += 15 + round(font.getlength(name)) + 12
    return drawn


def _panels(row: ContactRow, palette: np.ndarray, cell: int) -> dict[str, Image.Image]:
    """The row's panels by column, all of one size, whose longer side is `cell` pixels."""
    height, width = row.image.shape[:2]
    scale = cell / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = np.asarray(Image.fromarray(row.image).resize(size, Image.Resampling.LANCZOS))
    faded = fade(image)
    panels = {"Image": image}
    for column, labels in (("Ground truth", row.truth), ("Pseudo-mask", row.mask), ("Segments", row.segments)):
        if labels is not None:
            small = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
            panels[column] = mask_overlay(faded, small, palette, outline=2)
    if row.scores is not None:
        maps = [Image.fromarray(scores).resize(size, Image.Resampling.BILINEAR) for scores in row.scores]
        scores = np.stack([np.asarray(one) for one in maps]) if maps else np.zeros((0, *image.shape[:2]), np.float32)
        panels["CAM"] = heat_overlay(faded, scores, palette[list(row.classes)])
    return {column: Image.fromarray(panel) for column, panel in panels.items()}


def _draw_title(title: str, width: int) -> Image.Image:
    drawn = Image.new("RGB", (width, TITLE + 14), "white")
    title, font = legible(title, TITLE)
    ImageDraw.Draw(drawn).text((0, 0), title, INK, font)
    return drawn


def _draw_legend(rows: Sequence[ContactRow], vocabulary: Vocabulary, width: int) -> Image.Image:
    """The legend: the classes on the sheet, and the meaning of hatching and opacity."""
    seen = {index for row in rows for index in row.classes}
    maps = [labels for row in rows for labels in (row.truth, row.mask) if labels is not None]
    seen |= {int(label) for labels in maps for label in np.unique(labels)}
    entries = [(vocabulary.names[index], vocabulary.palette[index]) for index in sorted(seen - {0, IGNORE})]
    if IGNORE in seen or any((row.segments == IGNORE).any() for row in rows if row.segments is not None):
        entries.append(("ignored", hatching((TEXT, 24))))
    if any(row.scores is not None for row in rows):
        ramp = np.linspace(255, 60, 64)[None, :, None]
        entries.append(("CAM score 0 to 1", np.repeat(np.repeat(ramp, TEXT, 0), 3, 2)))
    return legend(entries, width, SMALL + 1)


def _side_by_side(blocks: list[Image.Image]) -> Image.Image:
    width = sum(block.width + BLOCK_GAP for block in blocks) - BLOCK_GAP
    drawn = Image.new("RGB", (width, max(block.height for block in blocks)), "white")
    for index, block in enumerate(blocks):
        drawn.paste(block, (index * (block.width + BLOCK_GAP), 0))
    return drawn
