"""The registry of methods. Importing it loads no model code: an entry's `build` imports what it needs."""

import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from pseudolabel.config import (
    SECTIONS,
    DiffSegConfig,
    DiffSegmenterConfig,
    ElboConfig,
    FreeSegDiffConfig,
)
from pseudolabel.errors import MethodError, SampleError, SettingError
from pseudolabel.methods.plugin_errors import plugin_errors
from pseudolabel.records import Kind, LabelMap, Sample, ScoreMaps
from pseudolabel.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch

    from pseudolabel.diffusion.model import DiffusionModel
    from pseudolabel.text.captions import Captions

Outcome = ScoreMaps | LabelMap | SampleError


class Predictor(Protocol):
    """A method with its model, ready to take samples.

    A predictor may also have a method `view(image)`, which takes what it needs from a full-size image, such as the
    image at the model's size. It is called in the threads that read images, `Sample.view` holds its result, and
    `sample.viewed(self.view)` gives it for any sample. Without it, `sample.image` decodes the image once more.
    """

    def settings(self) -> dict[str, Any]:
        """Everything that the results depend on besides the diffusion model and the labels, ready for JSON.

        That is the method's own settings, digests of further models' weights, and the words of the vocabulary that it
        reads besides names and prompt names.
        """
        ...

    def __call__(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, Outcome]]:
        """Every sample with its result or its failure, in order; samples are taken as needed.

        Apart from rounding, a result may not depend on the other samples of the call: noise is drawn by key.
        """
        ...


@dataclass(frozen=True)
class Context:
    """What a predictor is built from, besides its settings.

    Attributes:
        device: where it runs.
        vocabulary: the classes of the samples.
        model: the frozen diffusion model; None for a method without one.
        captions: sentences by (key, class name), or by (key, "") for the image; None without captions.
        batch: rows per forward pass of the U-Net.
        seed: noise is drawn from (seed, key).
        loaders: threads that prepare images ahead of the model.
        workers: processes for work on processor cores.
    """

    device: "torch.device"
    vocabulary: Vocabulary
    model: "DiffusionModel | None" = None
    captions: "Captions | None" = None
    batch: int = 16
    seed: int = 0
    loaders: int = 4
    workers: int = 1

    @property
    def diffusion(self) -> "DiffusionModel":
        """The diffusion model, for methods that need one."""
        assert self.model is not None, "the method is registered with needs_model=False"
        return self.model


@dataclass(frozen=True)
class Method:
    """A method's entry in the registry.

    Attributes:
        name: the value of `method`; the settings have the same name.
        build: makes a predictor from a context and the settings.
        settings: a frozen dataclass with useful defaults, whose docstring explains each field under `Args:`.
        produces: what the method gives with these settings: `cams` are class activation maps, still to be refined;
            `masks` are label maps of the vocabulary's classes; `segments` are label maps whose values 1, 2, ... only
            tell an image's regions apart.
        needs_labels: whether it needs an image's classes; otherwise images without labels are labelled as well.
            Segments never need them.
        needs_model: whether it reads the diffusion model.
        captions: which sentences it reads: one for each `class` of an image, one for the `image`, or `none`.
        name_segments: for a method that can do both, the settings with which its segments get class names, or do not.
        source: digest of the user's file that registered it; empty for a method of the package.
        file: path of that file.
    """

    name: str
    build: Callable[[Context, Any], Predictor]
    settings: type[Any]
    produces: Callable[[Any], Kind]
    needs_labels: bool = True
    needs_model: bool = True
    captions: Literal["class", "image", "none"] = "none"
    name_segments: Callable[[Any, bool], Any] | None = None
    source: str = ""
    file: str = ""

    def kind(self, settings: Any) -> Kind:
        """What the method gives with these settings.

        Raises:
            MethodError: if `produces` of a user's method fails, or gives something else.
        """
        with plugin_errors(self):
            kind = self.produces(settings)
        if kind not in get_args(Kind):
            raise MethodError(f"method '{self.name}' produces {kind!r}; give one of {', '.join(get_args(Kind))}")
        return kind

    def takes_unlabelled(self, settings: Any) -> bool:
        """Whether images without labels are labelled as well."""
        return not self.needs_labels or self.kind(settings) == "segments"


METHODS: dict[str, Method] = {}
# The names of all settings but those of the methods of the package.
BUILT_IN = ("diffsegmenter", "elbo", "diffseg", "freesegdiff")
RESERVED = {*SECTIONS, "own_settings"} - {*BUILT_IN}


def register(method: Method) -> Method:
    """Add a method, from inside the package or from a user's own file.

    Raises:
        SettingError: if the name is taken by another method or by a section of the settings, or the settings are not
            a dataclass in which every field has a default.
    """
    _check_settings(method)
    known = METHODS.get(method.name)
    if known is not None and known.settings.__qualname__ != method.settings.__qualname__:
        raise SettingError(f"a method '{method.name}' is registered already; give yours another name")
    if not method.name.isidentifier() or method.name in RESERVED:
        raise SettingError(f"a method cannot be named '{method.name}'; give it a Python name that no setting has")
    METHODS[method.name] = method
    return method


def _check_settings(method: Method) -> None:
    settings = method.settings
    if not isinstance(settings, type) or not is_dataclass(settings):
        raise SettingError(
            f"method '{method.name}': its `settings` {settings!r} is no dataclass; give the class itself"
        )
    for field in fields(settings):
        if field.init and field.default is MISSING and field.default_factory is MISSING:
            raise SettingError(f"method '{method.name}': setting `{field.name}` has no default; give it one")


def find_method(name: str) -> Method:
    """The entry of a name.

    Raises:
        SettingError: if there is none.
    """
    if name in METHODS:
        return METHODS[name]
    near = difflib.get_close_matches(name, METHODS, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"those here are {', '.join(METHODS)}."
    raise SettingError(f"`method` {name}: no such method; {hint} Otherwise name its file with `plugins`")


# A method of the package is one file of mathematics, one predictor, its settings in config/, and one entry here.


def _diffsegmenter(context: Context, settings: DiffSegmenterConfig) -> Predictor:
    from pseudolabel.methods.diffsegmenter_predictor import DiffSegmenterPredictor

    return DiffSegmenterPredictor(context, settings)


def _elbo(context: Context, settings: ElboConfig) -> Predictor:
    from pseudolabel.methods.elbo_predictor import ElboPredictor

    return ElboPredictor(context, settings)


def _diffseg(context: Context, settings: DiffSegConfig) -> Predictor:
    from pseudolabel.methods.diffseg_predictor import DiffSegPredictor

    return DiffSegPredictor(context, settings)


def _freesegdiff(context: Context, settings: FreeSegDiffConfig) -> Predictor:
    from pseudolabel.methods.freesegdiff_predictor import FreeSegDiffPredictor

    return FreeSegDiffPredictor(context, settings)


register(Method("diffsegmenter", _diffsegmenter, DiffSegmenterConfig, lambda _: "cams", captions="class"))
register(Method("elbo", _elbo, ElboConfig, lambda _: "cams", captions="class"))
register(
    Method(
        "diffseg",
        _diffseg,
        DiffSegConfig,
        lambda settings: "masks" if settings.semantic else "segments",
        captions="image",
        name_segments=lambda settings, named: replace(settings, semantic=named),
    )
)
register(Method("freesegdiff", _freesegdiff, FreeSegDiffConfig, lambda _: "masks"))
