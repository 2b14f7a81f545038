"""The commands that exchange maps and masks with other programs and with people."""

from pseudolabel.command_line import report
from pseudolabel.config import Experiment
from pseudolabel.exports.names import FormatName
from pseudolabel.sources.cam_files import CamFormat


def import_cams(experiment: Experiment, folder: str, *, format: CamFormat, retry_failed: bool = False) -> int:
    """Write score maps of another program as CAM shards in OUT/cams, for refine, evaluate and the others.

    For example: pseudolabel import-cams irn/cam --format npy --source.path VOC2012 --out runs/irn

    The source lists the images and their labels; a file is named as its image. Values must be in [0, 1]; they are never
    scaled again. The same command resumes a run that was stopped, and takes files that have changed again.

    Args:
        folder: of the files.
        format: `npy` are dictionaries as of IRNet, SEAM, MCTformer and CLIP-ES, or arrays; `png` 8-bit grey images
            KEY/CLASS.png; `npz` the files in our own shards.
        retry_failed: also retry the failed samples of finished shards.
    """
    from pseudolabel.stages.functions import import_cams as run

    return report(run(experiment, folder=folder, format=format, retry_failed=retry_failed))


def import_masks(experiment: Experiment, folder: str, retry_failed: bool = False) -> int:
    """Write PNG masks of another program, palette or grey, as mask shards in OUT/masks, for evaluate, train and others.

    Args:
        folder: of the masks, named as the images.
        retry_failed: also retry the failed samples of finished shards.
    """
    from pseudolabel.stages.functions import import_masks as run

    return report(run(experiment, folder=folder, retry_failed=retry_failed))


def export_cams(folder: str, *, to: str) -> int:
    """Write CAM shards as NumPy dictionaries that IRNet's scripts read, TO/KEY.npy.

    Args:
        folder: of CAM shards, such as runs/voc/cams.
        to: folder to write; files that this package did not write are kept.
    """
    from pseudolabel.stages.export_cams import export_cams as run

    print(f"{run(folder, to):,} files -> {to}")
    return 0


def correct(out: str, *, masks: str) -> int:
    """Put masks that people made or corrected in the place of those in OUT/masks, by key.

    They are marked as `source: human`, and stay when masks are refined again. What is of another size, class or key is
    listed and not applied; the exit status is then 3.

    Args:
        out: output folder of a run, such as runs/voc.
        masks: a folder of PNGs (palette or grey, values are the run's class indices), or of CVAT's "Segmentation mask
            1.1", or COCO's or Label Studio's JSON.
    """
    from pseudolabel.stages.correct import correct as run

    return report(run(out, masks))


def export(
    run: str,
    *,
    to: FormatName,
    out: str,
    split: float | None = None,
    ignore: int | None = None,
    pieces: bool = False,
    polygons: bool = False,
    worst: int | None = None,
) -> int:
    """Write the masks of a run, with their images and class names, in a format that other tools read.

    For example: pseudolabel export runs/mine --to coco --out exports/mine --split 0.9

    docs/export.md says who reads each format. The folder is new, empty, or an earlier export with the same options: the
    same command completes one that was stopped, and writes only what has changed. Files that others wrote or corrected
    are never overwritten.

    Args:
        run: the output folder of generate or refine, such as runs/mine; or a folder of mask shards.
        to: the format. png: single-channel masks with data.yaml. voc: PASCAL VOC's folders. coco: instances in JSON.
            yolo: outlines in text files. labelstudio: predictions to import. cvat: "Segmentation mask 1.1". hf: Parquet
            with a data set card.
        out: the folder to write.
        split: share of samples for training, such as 0.9; the others are for validation. Each sample's key decides, so
            that more samples later move none. Without it samples are not split.
        ignore: label for pixels to ignore (255 in masks): 0 is background, 255 keeps them. By default png, voc and hf
            keep them, and they are background in the other formats.
        pieces: for coco. Each connected piece of a class is an instance; without it, each class of an image is one.
        polygons: for coco. Write outlines instead of run lengths, but for instances with holes.
        worst: write only so many samples, those whose masks have the least confidence, for people to correct.
    """
    from pseudolabel.exports.export import export as write_export

    written = write_export(run, to, out, split=split, ignore=ignore, pieces=pieces, polygons=polygons, worst=worst)
    return report(written)


def push(run: str, repo: str, token: str | None = None, private: bool = False, revision: str | None = None) -> int:
    """Upload an export in the format hf, or the mask shards of a run, to the Hugging Face hub as a data set.

    For example: pseudolabel push exports/mine my-name/my-masks --private

    datasets.load_dataset("my-name/my-masks") then reads it. A data set card that the repository has already is kept.

    Args:
        run: a folder that export --to hf wrote; or the output folder of generate or refine, such as runs/mine.
        repo: the repository, such as my-name/my-masks; it is created where it is missing.
        token: for the hub; by default the one that 'hf auth login' has stored, or HF_TOKEN.
        private: create the repository for its owner alone; one that exists stays as it is.
        revision: branch to upload to, created where it is missing; by default the main one.
    """
    from pseudolabel.exports.push import push as upload

    return report(upload(run, repo, token=token, private=private, revision=revision))
