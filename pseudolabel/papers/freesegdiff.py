"""The tables of FreeSeg-Diff (Corradini et al. 2024); other methods' scores as printed there."""

from pseudolabel.config import Experiment
from pseudolabel.io.shipped import NAME, NAMES
from pseudolabel.papers.row import Change, Row, Table, both, method, quoted, setting

PER_IMAGE, MIOU, ACCURACY = "mIoU, per image", "mIoU", "accuracy"
SCORES = (PER_IMAGE, MIOU)
PROTOCOL = "mean over images of the IoU over present classes, void counted as background, as released; and mIoU"

_VOC = {
    "ReCo": 25.1, "ViL-Seg": 37.3, "ViewCo": 45.7, "OVSegmentor": 53.8, "GroupViT": 52.3, "SegCLIP": 52.6, "TCL": 55.0,
    "CLIPpy": 52.2, "CLIP": 18.1, "MaskCLIP": 22.1, "K-Means + CLIP": 25.0, "ALIGN": 29.7, "OVDiff": 69.0,
    "DiffuMask": 70.6, "ODISE": 82.7,
}  # fmt: skip
_VOC_C = {"GroupViT": 57.8, "Peekaboo": 52.0}
_COCO = {
    "ReCo": 15.7, "ViewCo": 23.5, "OVSegmentor": 25.1, "GroupViT": 24.3, "SegCLIP": 26.5, "TCL": 31.6, "CLIPpy": 32.0,
    "CLIP": 14.5, "MaskCLIP": 13.8, "OVDiff": 36.3, "ODISE": 52.4,
}  # fmt: skip
_COCO_27 = {"ReCo": 26.3, "MaskCLIP": 19.6}

# Resolution of the feature maps at 512 pixels: features alone, features and attention, for K = 3, 4, 5.
_FEATURES = {
    "16": ((52.07, 53.27, 51.85), (51.81, 53.31, 52.04)),
    "32": ((46.73, 50.31, 49.82), (46.06, 49.17, 48.84)),
    "64": ((42.54, 44.72, 44.73), (40.15, 42.67, 42.35)),
    "16+32": ((51.09, 53.18, 52.37), (50.20, 52.79, 51.64)),
    "32+64": ((46.35, 49.90, 50.03), (45.07, 47.99, 48.20)),
    "16+32+64": ((51.16, 52.95, 52.32), (49.58, 52.06, 51.59)),
}
_STRIDES = {"16": 32, "32": 16, "64": 8}


def _freeseg(**settings: object) -> Change:
    captions = setting("filter", image="none", nouns="nearest", prefixes=["a picture of"])
    return both(captions, method("freesegdiff", **settings))


# Settings of the released code that differ from the paper, as in configs/pipeline/freesegdiff_released.yaml.
RELEASED = {
    "noise": True,
    "vae": "sample",
    "template": "{}",
    "background_words": False,
    "naming": "released",
    "enlarge": "nearest",
    "refinement": "per_cluster",
    "certainty": 0.9,
}


def _released(experiment: Experiment) -> Experiment:
    words = both(setting("filter", nouns="mean_of_minima"), setting("captions", max_length=20, beams=3))
    return both(_freeseg(**RELEASED), words)(experiment)


def _released_row(data: str, published: float) -> Row:
    return Row("FreeSeg-Diff, as released", data, {PER_IMAGE: published}, _released, labels="predicted")


def _row(name: str, data: str, published: float, **settings: object) -> Row:
    return Row(name, data, {PER_IMAGE: published}, _freeseg(**settings), labels="predicted")


TABLE_1 = Table(
    "FreeSeg-Diff, Table I: open-vocabulary segmentation",
    SCORES,
    PROTOCOL,
    (
        *quoted("VOC val", PER_IMAGE, _VOC),
        _row("FreeSeg-Diff", "VOC val", 53.27),
        _released_row("VOC val", 53.27),
        *quoted("VOC-C", PER_IMAGE, _VOC_C),
        _row("FreeSeg-Diff", "VOC-C", 58.86),
        _released_row("VOC-C", 58.86),
        *quoted("COCO-Object", PER_IMAGE, _COCO),
        _row("FreeSeg-Diff", "COCO-Object", 31.01),
        _released_row("COCO-Object", 31.01),
        *quoted("COCO-27", PER_IMAGE, _COCO_27),
        _row("FreeSeg-Diff", "COCO-27", 34.03),
        _released_row("COCO-27", 34.03),
    ),
)

TABLE_2 = Table(
    "FreeSeg-Diff, Table II: stages",
    SCORES,
    PROTOCOL,
    (
        Row("baseline, every class a candidate", "VOC val", {PER_IMAGE: 17.52}, _freeseg(refinement="none"), "all"),
        _row("BLIP", "VOC val", 50.39, refinement="none"),
        _row("BLIP + refinement", "VOC val", 53.27),
        _row("BLIP + refinement + attention", "VOC val", 53.31, features="both"),
    ),
)


def _backbone(name: str, accuracy: float, published: float, change: Change, on_shapes: bool = True) -> Row:
    figures = {ACCURACY: accuracy, PER_IMAGE: published}
    return Row(name, "VOC val", figures, change, labels="predicted", on_shapes=on_shapes)


def _other_model(name: str) -> Change:
    return _freeseg(refinement="none", backbone=name)


def _clip(experiment: Experiment) -> Experiment:
    """CLIP's image encoder; on Shapes that of the small CLIP."""
    return _other_model(NAME if experiment.model.name in NAMES else "openai/clip-vit-large-patch14")(experiment)


TABLE_3 = Table(
    "FreeSeg-Diff, Table III: backbones, without refinement",
    (ACCURACY, PER_IMAGE, MIOU),
    PROTOCOL,
    (
        _backbone("CLIP-ViT", 62.10, 37.07, _clip),
        _backbone("ViT", 55.49, 30.64, _other_model("google/vit-huge-patch14-224-in21k"), on_shapes=False),
        _backbone("DINOv2", 60.32, 34.58, _other_model("facebook/dinov2-large"), on_shapes=False),
        _backbone("SDM", 72.19, 49.52, _freeseg(refinement="none")),
    ),
)


def _features() -> tuple[Row, ...]:
    rows = []
    for resolution, figures in _FEATURES.items():
        strides = [_STRIDES[part] for part in resolution.split("+")]
        for features, published in zip(("queries", "both"), figures, strict=True):
            for clusters, figure in zip((3, 4, 5), published, strict=True):
                kind = "F" if features == "queries" else "A + F"
                name = f"{resolution}, {kind}, K = {clusters}"
                rows.append(_row(name, "VOC val", figure, features=features, strides=strides, clusters=clusters))
    return tuple(rows)


TABLE_4 = Table("FreeSeg-Diff, Table IV: features and clusters", SCORES, PROTOCOL, _features())
