"""Pseudo-masks from images and image-level labels.

    import pseudolabel as pl

    model = pl.load_model("stable-diffusion-v1-5/stable-diffusion-v1-5")
    for result in pl.DiffSegmenter(model)(["dog.jpg", "cat.jpg"], labels=[["dog"], ["cat", "sofa"]]):
        refined = pl.refine(result.image, result.scores, result.names)

Importing the package is quick: each name is imported when it is first used, since torch and diffusers take seconds.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pseudolabel import crf
    from pseudolabel.config import (
        CrfConfig,
        DiffSegConfig,
        DiffSegmenterConfig,
        ElboConfig,
        Experiment,
        FreeSegDiffConfig,
    )
    from pseudolabel.errors import MethodError, ModelError, SampleError, SettingError, UserError, VocabularyError
    from pseudolabel.experiment_file import open_experiment
    from pseudolabel.exports.export import export
    from pseudolabel.exports.push import push
    from pseudolabel.methods.plugins import load_plugins
    from pseudolabel.methods.registry import Context, Method
    from pseudolabel.methods.registry import register as register_method
    from pseudolabel.papers.reproduce import reproduce
    from pseudolabel.records import Failure, LabelMap, Sample, ScoreMaps
    from pseudolabel.shapes.dataset import write_shapes
    from pseudolabel.shards.dataset import ShardDataset
    from pseudolabel.stages.correct import correct
    from pseudolabel.stages.doctor import diagnose
    from pseudolabel.stages.export_cams import export_cams
    from pseudolabel.stages.functions import (
        cams,
        caption,
        evaluate,
        failures,
        filter_classes,
        generate,
        import_cams,
        import_masks,
        probe,
        refine_cams,
        segment_images,
        sheet,
        verify,
    )
    from pseudolabel.stages.image_method import DiffSeg, DiffSegmenter, Elbo, FreeSegDiff, ImageMethod
    from pseudolabel.stages.pretrained import load_model
    from pseudolabel.stages.refine_image import refine
    from pseudolabel.stages.report_page import report
    from pseudolabel.stages.segmenter import Segmenter
    from pseudolabel.views.segmentation import Segmentation

    __version__: str

__all__ = [
    "Context",
    "CrfConfig",
    "DiffSeg",
    "DiffSegConfig",
    "DiffSegmenter",
    "DiffSegmenterConfig",
    "Elbo",
    "ElboConfig",
    "Experiment",
    "Failure",
    "FreeSegDiff",
    "FreeSegDiffConfig",
    "ImageMethod",
    "LabelMap",
    "Method",
    "MethodError",
    "ModelError",
    "Sample",
    "SampleError",
    "ScoreMaps",
    "Segmentation",
    "Segmenter",
    "SettingError",
    "ShardDataset",
    "UserError",
    "VocabularyError",
    "__version__",
    "cams",
    "caption",
    "correct",
    "crf",
    "diagnose",
    "evaluate",
    "export",
    "export_cams",
    "failures",
    "filter_classes",
    "generate",
    "import_cams",
    "import_masks",
    "load_model",
    "load_plugins",
    "open_experiment",
    "probe",
    "push",
    "refine",
    "refine_cams",
    "register_method",
    "report",
    "reproduce",
    "segment_images",
    "sheet",
    "verify",
    "write_shapes",
]

_MODULES = {
    "config": ("CrfConfig", "DiffSegConfig", "DiffSegmenterConfig", "ElboConfig", "Experiment", "FreeSegDiffConfig"),
    "errors": ("MethodError", "ModelError", "SampleError", "SettingError", "UserError", "VocabularyError"),
    "methods.plugins": ("load_plugins",),
    "methods.registry": ("Context", "Method"),
    "records": ("Failure", "LabelMap", "Sample", "ScoreMaps"),
    "shards.dataset": ("ShardDataset",),
    "experiment_file": ("open_experiment",),
    "papers.reproduce": ("reproduce",),
    "shapes.dataset": ("write_shapes",),
    "stages.correct": ("correct",),
    "stages.doctor": ("diagnose",),
    "stages.export_cams": ("export_cams",),
    "stages.functions": (
        "cams",
        "caption",
        "evaluate",
        "failures",
        "filter_classes",
        "generate",
        "import_cams",
        "import_masks",
        "probe",
        "refine_cams",
        "segment_images",
        "sheet",
        "verify",
    ),
    "exports.export": ("export",),
    "exports.push": ("push",),
    "stages.image_method": ("DiffSeg", "DiffSegmenter", "Elbo", "FreeSegDiff", "ImageMethod"),
    "stages.pretrained": ("load_model",),
    "stages.refine_image": ("refine",),
    "stages.report_page": ("report",),
    "stages.segmenter": ("Segmenter",),
    "views.segmentation": ("Segmentation",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":  # a copy that is not installed has none
        return metadata.version("pseudolabel")
    if name == "crf":
        return import_module("pseudolabel.crf")
    if name == "register_method":
        return import_module("pseudolabel.methods.registry").register
    if name not in _HOMES:
        raise AttributeError(f"module 'pseudolabel' has no attribute '{name}'")
    return getattr(import_module(f"pseudolabel.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
