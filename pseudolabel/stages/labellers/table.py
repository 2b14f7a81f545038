"""The methods by name: who labels with them, and what comes out."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any, Protocol

from pseudolabel.config import Experiment, MethodName
from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.records import Kind, LabelMap, Sample, ScoreMaps
from pseudolabel.sources.entry import BadSample
from pseudolabel.stages.labellers.diffseg import DiffSegLabeller
from pseudolabel.stages.labellers.diffsegmenter import DiffSegmenterLabeller
from pseudolabel.stages.labellers.elbo import ElboLabeller
from pseudolabel.stages.labellers.freesegdiff import FreeSegDiffLabeller
from pseudolabel.text.captions import Captions
from pseudolabel.vocabulary import Vocabulary


class Labeller(Protocol):
    """A method with its model, ready to take samples."""

    def settings(self) -> dict[str, Any]:
        """All that the results depend on beside the diffusion model and the labels, ready for JSON.

        That is the method's own settings, further models' weights by their digests, and the words of the vocabulary
        that it reads beside names and prompt names.
        """
        ...

    def __call__(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, ScoreMaps | LabelMap | BadSample]]:
        """Every sample with its result, or with what is wrong with it, in their order; they are taken as needed.

        Nothing may depend on which samples are called together with others, save for rounding: noise is drawn by key.
        """
        ...


Make = Callable[[Experiment, DiffusionModel, Vocabulary, Captions | None], Labeller]

# A new method is one file in methods/, one beside this one, and one line here.
LABELLERS: dict[MethodName, Make] = {
    "diffsegmenter": DiffSegmenterLabeller,
    "elbo": ElboLabeller,
    "diffseg": DiffSegLabeller,
    "freesegdiff": FreeSegDiffLabeller,
}


def kind_of(experiment: Experiment) -> Kind:
    """What the experiment's method writes.

    `cams` are class activation maps, still to be refined; `masks` are label maps of the vocabulary's classes;
    `segments` are label maps whose values 1, 2, ... only tell the image's regions apart.
    """
    if experiment.method in ("diffsegmenter", "elbo"):
        return "cams"
    return "segments" if experiment.method == "diffseg" and not experiment.diffseg.semantic else "masks"


def method_settings(experiment: Experiment) -> dict[str, Any]:
    """The method's name and its own switches, all that a result depends on."""
    return {"method": experiment.method, experiment.method: asdict(getattr(experiment, experiment.method))}
