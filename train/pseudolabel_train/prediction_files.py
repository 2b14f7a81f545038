"""Write a segmenter's predictions as palette PNGs, named after the images' paths below their folder."""

import io
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from mmengine.config import Config
from mmengine.dist import get_rank
from PIL import Image

from pseudolabel.errors import OutputError
from pseudolabel.io.folder import Folder
from pseudolabel.io.ownership import OwnFiles
from pseudolabel_train.errors import PredictionNameError

SHARD = ".tar/"  # ends the shard's path in the path of a sample, `SHARD.tar/KEY`


class PredictionFiles:
    """Palette PNGs in a folder, one per image.

    Args:
        folder: output folder.
        image_folders: an image below one of them is named by its path there; any other by its file name.
    """

    def __init__(self, folder: str, image_folders: Sequence[str] = ()) -> None:
        self.image_folders = tuple(image_folders)
        self._folder = folder
        self._files: OwnFiles | None = None  # opened by each rank when it writes
        self._images: dict[str, str] = {}

    def write(self, path: str, mask: Image.Image) -> None:
        """Write the prediction for the image of this path.

        Raises:
            PredictionNameError: if another image's prediction has the same name.
            OutputError: if it cannot be written, or would overwrite a file that is not ours.
        """
        name = self.name(path)
        if self._files is None:
            self._files = OwnFiles(Folder(self._folder), get_rank())
            self._files.folder.prepare()
        buffer = io.BytesIO()
        mask.save(buffer, "PNG")
        self._files.write({name: buffer.getvalue()})

    def check(self, paths: Sequence[str]) -> None:
        """Check, before anything is predicted, that all predictions can be written.

        Raises:
            PredictionNameError: if two would have the same name.
            OutputError: if the folder cannot be written, or has a file of such a name that is not ours.
        """
        files = OwnFiles(Folder(self._folder))
        names = [self.name(path) for path in paths]
        files.check(names)
        files.folder.prepare()
        if obstacle := next(filter(None, map(files.obstacle, names)), ""):
            raise OutputError(obstacle)

    def name(self, path: str) -> str:
        """`a/img.png` for the image `FOLDER/a/img.jpg`; it is always inside the output folder.

        Raises:
            PredictionNameError: if another image has the same name.
        """
        name = f"{prediction_name(path, self.image_folders)}.png"
        other = self._images.setdefault(name, path)
        if other != path:
            raise PredictionNameError(
                f"the predictions of '{other}' and '{path}' would both be '{name}'; rename one of the images, or "
                "give their data sets a different data_prefix.img_path"
            )
        return name


def prediction_name(path: str, image_folders: Sequence[str]) -> str:
    """An image's name: its path below the innermost of the folders, without suffix; for a sample of a shard, its key.

    For a path below none of the folders, only its last part is used.
    """
    if SHARD in path:
        parts = path.rpartition(SHARD)[2].split("/")
    else:
        full = PurePosixPath(path)
        above = [folder for folder in image_folders if full.is_relative_to(folder) and full != PurePosixPath(folder)]
        inner = max(above, key=lambda folder: len(PurePosixPath(folder).parts), default=str(full.parent))
        parts = list(full.relative_to(inner).with_suffix("").parts)
    safe = [part for part in parts if part not in ("", ".", "..")]
    return "/".join(safe) or "_"


def open_prediction_files(cfg: Config, evaluator: str, dataset: Any) -> None:
    """Give the evaluators that write predictions the images' folders, and check that they can write.

    Args:
        cfg: config of the run.
        evaluator: `test_evaluator` or `val_evaluator`.
        dataset: the data set to predict, already built.

    Raises:
        PredictionNameError: if two predictions would have the same name.
        OutputError: if the folder cannot be written, or has a file of such a name that is not ours.
    """
    found = cfg.get(evaluator) or []
    for one in found if isinstance(found, list) else [found]:
        if not one.get("output_dir") or getattr(one.type, "__name__", one.type) != "CrfIoUMetric":
            continue
        one.image_folders = sorted(set(_image_folders(dataset)))
        paths = [dataset.get_data_info(number)["img_path"] for number in range(len(dataset))]
        PredictionFiles(one.output_dir, one.image_folders).check(paths)


def _image_folders(dataset: Any) -> Iterator[str]:
    """The image folders of a data set and of the data sets inside MMEngine's wrappers."""
    for part in getattr(dataset, "datasets", None) or [getattr(dataset, "dataset", None)]:
        if part is not None:
            yield from _image_folders(part)
    prefix = getattr(dataset, "data_prefix", None) or {}
    if prefix.get("img_path"):
        yield str(prefix["img_path"])
