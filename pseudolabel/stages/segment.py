"""Segmenting a user's own images: masks, pictures and areas, beside one another in one folder."""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pseudolabel.batching import batched
from pseudolabel.config import Experiment
from pseudolabel.errors import UserError
from pseudolabel.shipped import NAME
from pseudolabel.sources.entry import BadSample, key_of
from pseudolabel.sources.images import IMAGE_SUFFIXES, decode_image
from pseudolabel.stages.progress import Meter, show_progress
from pseudolabel.stages.segmenter import Segmenter
from pseudolabel.stages.summary import FAILED_SAMPLES_EXIT
from pseudolabel.views.segmentation import Segmentation

TOGETHER = 16  # images whose model passes share batches


@dataclass
class Outcome:
    """What came of the images: the folder, how many were written, and what is wrong with the others, by path."""

    out: Path
    written: int = 0
    faults: dict[str, str] = field(default_factory=dict)

    def report(self) -> int:
        """Print what came of the images; give the exit status, 0 where all were written."""
        for fault in self.faults.values():
            print(f"not segmented: {fault}", file=sys.stderr)
        print(f"{self.written} images segmented, {len(self.faults)} not -> {self.out}")
        return FAILED_SAMPLES_EXIT if self.faults else 0


def segment_images(experiment: Experiment, paths: list[str], classes: str | None, sharpen: bool) -> Outcome:
    """Segment images and the images below folders, into `OUT/NAME.png`, `.overlay.png` and `.json`.

    Args:
        experiment: model, method and output folder.
        paths: image files and folders.
        classes: as for `Segmenter`; several names are separated by commas.
        sharpen: refine class activation maps with DenseCRF.

    Raises:
        UserError: if a path does not exist, there is no image, two images would get the same name, or a mask would be
            written over its image.
    """
    images = find_images(paths)
    outcome = Outcome(Path(experiment.out))
    _check_kept(images, outcome.out)
    if experiment.model.name == NAME:
        print("note: the small model that ships knows only Shapes; on other images it shows the steps, not sense. "
              "For real ones: --model.name stable-diffusion-v1-5/stable-diffusion-v1-5", file=sys.stderr)  # fmt: skip
    segmenter = Segmenter(experiment, sharpen)
    with show_progress("segment", len(images)) as meter:
        for batch in batched(images.items(), TOGETHER):
            _segment(segmenter, dict(batch), classes, experiment, outcome, meter)
    return outcome


def find_images(paths: Iterable[str]) -> dict[str, Path]:
    """Images by key, which is the path below the folder that was named, or the file's name.

    What an earlier run has written into a folder is left out.

    Raises:
        UserError: if a path does not exist, there is no image, or two images have one key.
    """
    found: dict[str, Path] = {}
    for root in map(Path, paths):
        if not root.exists():
            raise UserError(f"no file or folder '{root}'; give images, or folders that hold them")
        for file in _images_below(root) if root.is_dir() else [root]:
            key = key_of(file.relative_to(root) if root.is_dir() else file.name)
            if key in found and found[key] != file:
                raise UserError(f"'{found[key]}' and '{file}' would both be written as '{key}'; rename one of them")
            found[key] = file
    if not found:
        raise UserError(f"no images in {', '.join(map(repr, paths))}; known are {', '.join(IMAGE_SUFFIXES)}")
    return found


def _images_below(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return [path for path in found if not _is_ours(path)]


def _is_ours(path: Path) -> bool:
    """Whether this is a mask or a picture, with our description of another file's segmentation beside it."""
    try:
        described = json.loads((path.parent / f"{path.stem.removesuffix('.overlay')}.json").read_text(encoding="utf-8"))
        return "method" in described and Path(described["image"]).name != path.name
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _check_kept(images: dict[str, Path], out: Path) -> None:
    for key, path in images.items():
        if path.resolve() == (out / f"{key}.png").resolve():
            raise UserError(f"the mask of '{path}' would be written over it; choose another --out than '{out}'")


def _segment(
    segmenter: Segmenter,
    batch: dict[str, Path],
    classes: str | None,
    experiment: Experiment,
    outcome: Outcome,
    meter: Meter,
) -> None:
    images = {}
    for key, path in batch.items():
        try:
            images[key] = decode_image(path.read_bytes(), str(path), experiment.source.max_pixels)[0]
        except (BadSample, OSError) as error:
            outcome.faults[str(path)] = str(error)
    for key, result in segmenter.segment(images, classes):
        if isinstance(result, BadSample):
            outcome.faults[str(batch[key])] = str(result)
        else:
            _write(outcome.out / key, result, str(batch[key]), experiment)
            outcome.written += 1
        meter.update(outcome.written + len(outcome.faults), len(outcome.faults))


def _write(target: Path, result: Segmentation, image: str, experiment: Experiment) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    result.mask.save(f"{target}.png")
    result.overlay().save(f"{target}.overlay.png")
    described = {"image": image, "method": experiment.method, "model": experiment.model.name, **result.to_dict()}
    Path(f"{target}.json").write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
