"""Segmenting images into files: masks, overlays and areas, side by side in one folder."""

import hashlib
import io
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from pseudolabel.config import Experiment
from pseudolabel.errors import (
    FAILED_SAMPLES_EXIT,
    DeviceMemoryError,
    FullDiskError,
    OutputError,
    SampleError,
)
from pseudolabel.io.folder import Folder
from pseudolabel.io.json_text import encode_json
from pseudolabel.io.left_out import LeftOut
from pseudolabel.io.names import printable
from pseudolabel.io.ownership import OwnFiles
from pseudolabel.io.shipped import NAMES
from pseudolabel.runtime.batching import batched
from pseudolabel.runtime.progress import ProgressLine, show_progress
from pseudolabel.runtime.rank import current_rank
from pseudolabel.stages.method import chosen_method
from pseudolabel.stages.segment_inputs import list_images, shown
from pseudolabel.stages.segment_settings import digest_settings
from pseudolabel.stages.segmenter import GUESS_BATCH, Segmenter
from pseudolabel.views.segmentation import Segmentation

log = logging.getLogger(__name__)

MASK, OVERLAY, DESCRIPTION = ".png", ".overlay.png", ".json"  # the last one is written last

ONLY_SHAPES = (
    "note: the small model that ships is trained on Shapes only; on other images its masks are wrong. For photos: "
    "`model.name` stable-diffusion-v1-5/stable-diffusion-v1-5"
)


@dataclass
class Outcome:
    """How a run over images ended.

    Attributes:
        out: the output folder.
        written: how many were segmented now.
        done_before: how many an earlier run with the same settings has segmented.
        failures: the reasons why others were not, by path.
        left_out: files that were not taken.
    """

    out: str
    written: int = 0
    done_before: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def exit_status(self) -> int:
        """0 where no image failed."""
        return FAILED_SAMPLES_EXIT if self.failures else 0

    def lines(self) -> list[str]:
        """The command's result: how many images were segmented."""
        before = f", {self.done_before} left out, done before with these settings" if self.done_before else ""
        images = "1 image" if self.written == 1 else f"{self.written:,} images"
        return [f"{images} segmented, {len(self.failures)} not{before} -> {self.out}"]

    def notes(self) -> list[str]:
        """What failed, and how many files were left out."""
        failed = [f"not segmented: {message}" for message in self.failures.values()]
        return [*failed, *([str(self.left_out)] if self.left_out.total else [])]


def segment_images(experiment: Experiment, paths: list[str], classes: str | None, sharpen: bool) -> Outcome:
    """Segment images and the images below folders, into `OUT/NAME.png`, `.overlay.png` and `.json`.

    NAME is the image's path below the given folder, without its suffix. An image that was segmented before with the
    same settings is left out; with other settings it is segmented again.

    Args:
        experiment: model, method and output folder.
        paths: image files and folders.
        classes: as for `Segmenter`; several names are separated by commas.
        sharpen: refine class activation maps with DenseCRF.

    Raises:
        UserError: if a path does not exist, there is no image, or nothing can be written.
        NotOursError: if a file that this package did not write would be overwritten.
    """
    listed = list_images(paths)
    folder = Folder(experiment.out)
    settings = digest_settings(experiment, classes, sharpen)
    run = _Run(experiment, classes, OwnFiles(folder), settings, Outcome(folder.path, left_out=listed.left_out))
    run.outcome.failures |= listed.failures
    images = run.choose(listed.images)
    run.files.check(name + suffix for name in images for suffix in (MASK, OVERLAY, DESCRIPTION))
    folder.prepare()
    images = run.drop_impossible(images)
    if images:
        run.work(images, sharpen)
    return run.outcome


@dataclass
class _Run:
    experiment: Experiment
    classes: str | None
    files: OwnFiles
    settings: str
    outcome: Outcome

    def choose(self, images: Mapping[str, Path]) -> dict[str, Path]:
        """The images that are still to be segmented, of which no two write the same file."""
        chosen: dict[str, Path] = {}
        taken: dict[str, Path] = {}
        for name, path in images.items():
            targets = [name + suffix for suffix in (MASK, OVERLAY, DESCRIPTION)]
            if others := [target for target in targets if target in taken]:
                other = shown(taken[others[0]])
                message = f"'{shown(path)}' would be written as '{others[0]}', like '{other}'; rename one of them"
                self.outcome.failures[str(path)] = message
                continue
            taken |= dict.fromkeys(targets, path)
            if self._is_done(name, path):
                self.outcome.done_before += 1
            elif other := self._other_image(name, path):
                target = f"{self.outcome.out}/{name}{MASK}"
                message = f"'{shown(path)}': '{target}' is the mask of '{other}'; choose another `out`"
                self.outcome.failures[str(path)] = message
            else:
                chosen[name] = path
        return chosen

    def drop_impossible(self, images: Mapping[str, Path]) -> dict[str, Path]:
        """The images whose files can be written under their names."""
        possible = {}
        for name, path in images.items():
            obstacles = (self.files.obstacle(name + suffix) for suffix in (MASK, OVERLAY, DESCRIPTION))
            if obstacle := next(filter(None, obstacles), ""):
                self.outcome.failures[str(path)] = f"'{shown(path)}': {obstacle}"
            else:
                possible[name] = path
        return possible

    def work(self, images: Mapping[str, Path], sharpen: bool) -> None:
        if self._model in NAMES:
            log.info(ONLY_SHAPES)
        work = replace(self.experiment.work, workers=self.experiment.work.workers or current_rank().cores())
        segmenter = Segmenter(replace(self.experiment, work=work), sharpen)
        total = len(images) + len(self.outcome.failures)
        with show_progress("segment", total, failures=len(self.outcome.failures)) as progress:
            for batch in batched(images.items(), GUESS_BATCH):
                try:
                    self._segment(segmenter, dict(batch), progress)
                except FullDiskError:
                    log.warning("%s", "\n".join([*self.outcome.notes(), *self.outcome.lines()]))
                    raise
                except torch.OutOfMemoryError as error:
                    raise DeviceMemoryError(
                        "out of memory, with one row at once as well; give a smaller `model.image_size`, or "
                        f"`model.dtype` bfloat16. Finished images are kept, and the same command resumes. ({error})"
                    ) from error

    def _segment(self, segmenter: Segmenter, batch: Mapping[str, Path], progress: ProgressLine) -> None:
        made_from = {}
        for name, path in batch.items():
            with suppress(OSError):  # the segmenter gives the reason
                made_from[name] = self._made_from(path)
        for name, result in segmenter.segment(batch, self.classes):
            self._finish(name, batch[name], result, made_from)
            progress.update(self.outcome.written + len(self.outcome.failures), len(self.outcome.failures))

    def _finish(
        self, name: str, path: Path, result: Segmentation | SampleError, made_from: Mapping[str, dict[str, Any]]
    ) -> None:
        """Write an image's files, or record the reason why there are none."""
        if isinstance(result, SampleError):
            message = str(result)
            self.outcome.failures[str(path)] = message if shown(path) in message else f"'{shown(path)}': {message}"
            return
        try:
            self._write(name, path, result, made_from[name])
        except FullDiskError:
            raise
        except OutputError as error:
            self.outcome.failures[str(path)] = f"'{shown(path)}': {error}"
        else:
            self.outcome.written += 1

    def _write(self, name: str, path: Path, result: Segmentation, made_from: dict[str, Any]) -> None:
        described = {"method": self.experiment.method, "model": self._model, **result.to_dict()}
        self.files.write(
            {
                name + MASK: _png(result.mask),
                name + OVERLAY: _png(result.overlay()),
                name + DESCRIPTION: encode_json({"image": printable(str(path)), **described, "made_from": made_from}),
            }
        )

    @property
    def _model(self) -> str | None:
        """Name of the diffusion model; None for a method that reads none."""
        return self.experiment.model.name if chosen_method(self.experiment)[0].needs_model else None

    def _is_done(self, name: str, path: Path) -> bool:
        """Whether all files exist, made with these settings from an image with the same bytes."""
        if not all(name + suffix in self.files.names() for suffix in (MASK, OVERLAY, DESCRIPTION)):
            return False
        try:
            described = json.loads(self.files.folder.read_bytes(name + DESCRIPTION))
            are_there = all(self.files.folder.exists(name + suffix) for suffix in (MASK, OVERLAY))
            return are_there and described["made_from"] == self._made_from(path)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _other_image(self, name: str, path: Path) -> str:
        """The other image that the files of this name were made from, if it still exists; else empty."""
        if name + DESCRIPTION not in self.files.names():
            return ""
        try:
            image = str(json.loads(self.files.folder.read_bytes(name + DESCRIPTION))["image"])
            return image if Path(image).exists() and not Path(image).samefile(path) else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def _made_from(self, path: Path) -> dict[str, Any]:
        return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "settings": self.settings}


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
