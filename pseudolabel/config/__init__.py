"""The typed settings of every stage; the only place with defaults.

An experiment is one YAML file (`configs/pipeline/*.yaml`) that fills `Experiment`. Every command takes such a file and
reads its part of it, so that `cams`, `refine` and `evaluate` use the same data, model and output folder.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from pseudolabel.config.crf import CrfConfig
from pseudolabel.config.diffseg import DiffSegConfig
from pseudolabel.config.diffsegmenter import SD_LEVEL_WEIGHTS, DiffSegmenterConfig, ElboConfig
from pseudolabel.config.freesegdiff import FreeSegDiffConfig
from pseudolabel.config.model import ModelConfig
from pseudolabel.config.refine import RefineConfig
from pseudolabel.config.source import SourceConfig
from pseudolabel.config.text import CaptionConfig, FilterConfig
from pseudolabel.config.work import EvaluateConfig, WorkConfig
from pseudolabel.limits import check_numbers

__all__ = [
    "SD_LEVEL_WEIGHTS",
    "SECTIONS",
    "CaptionConfig",
    "CrfConfig",
    "DiffSegConfig",
    "DiffSegmenterConfig",
    "ElboConfig",
    "EvaluateConfig",
    "Experiment",
    "FilterConfig",
    "FreeSegDiffConfig",
    "ModelConfig",
    "RefineConfig",
    "SourceConfig",
    "WorkConfig",
]


@dataclass(frozen=True)
class Experiment:
    """Everything that one run needs: data, vocabulary, model, method, refinement and the output folder.

    Args:
        out: folder of the results: `cams/`, `masks/`, `segments/`, `filter/` and `metrics.json` appear in it; fsspec
            URLs work.
        vocabulary: one that ships (`voc`, `coco`, `context`, `coco27`, `cityscapes27`, `shapes`), the path of a file
            with the class names (YAML, JSON, or one per line), or the names, such as `dog` or `dog, red car`. Empty is
            `voc`; for class folders a shipped one that has all their names, or else the folders' names.
        source: where images and image-level labels come from.
        model: the diffusion model.
        method: `diffsegmenter`, `elbo`, `diffseg`, `freesegdiff`, or a method that one of `plugins` registers; its
            settings have the same name.
        plugins: Python files of yours that register methods, such as docs/examples/own_method.py.
        diffsegmenter: settings of DiffSegmenter.
        elbo: settings of the ELBO baseline.
        diffseg: settings of DiffSeg, its K-means baselines and DiffCut.
        freesegdiff: settings of FreeSeg-Diff.
        captions: sentences that continue the prompt.
        filter: prediction of classes for images without labels.
        work: units, batches and workers.
        crf: DenseCRF's parameters.
        refine: what adjusts masks after DenseCRF.
        evaluate: how scores are reported.
        own_settings: settings of the plugins' methods, by name.
    """

    out: str = "runs/pseudolabel"
    vocabulary: str = ""
    source: SourceConfig = field(default_factory=SourceConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    method: str = "diffsegmenter"
    plugins: list[str] = field(default_factory=list)
    diffsegmenter: DiffSegmenterConfig = field(default_factory=DiffSegmenterConfig)
    elbo: ElboConfig = field(default_factory=ElboConfig)
    diffseg: DiffSegConfig = field(default_factory=DiffSegConfig)
    freesegdiff: FreeSegDiffConfig = field(default_factory=FreeSegDiffConfig)
    captions: CaptionConfig = field(default_factory=CaptionConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)
    work: WorkConfig = field(default_factory=WorkConfig)
    crf: CrfConfig = field(default_factory=CrfConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    own_settings: dict[str, Any] = field(default_factory=dict)

    def method_settings(self, name: str, default: Callable[[], Any]) -> Any:
        """The settings of a method of the package or of a plugin; `default()` if the experiment has none."""
        if name in self.own_settings:
            return self.own_settings[name]
        return getattr(self, name) if name in self.__dataclass_fields__ else default()

    def __post_init__(self) -> None:
        """Check the numbers; raises SettingError."""
        check_numbers(self)


SECTIONS = tuple(field.name for field in fields(Experiment) if field.name != "own_settings")
"""The names of an experiment's settings and sections, those of the package's methods included."""
