"""The typed settings of every stage; the only place with defaults.

An experiment is one YAML file (`configs/pipeline/*.yaml`) that fills `Experiment`. Every command takes such a file and
reads its part of it, so that `cams`, `refine` and `evaluate` use the same data, model and output folder.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from pseudolabel.limits import check_numbers

# Layer weights of DiffSegmenter on Stable Diffusion: the paper's .3/.5/.1/.1 for maps of 8/16/32/64 at 512 pixels.
SD_LEVEL_WEIGHTS = {64: 0.3, 32: 0.5, 16: 0.1, 8: 0.1}


@dataclass(frozen=True)
class SourceConfig:
    """Where images and image-level labels come from.

    Args:
        kind: the data's layout: `voc` (JPEGImages, ImageSets, Annotations), `table` (CSV, JSONL or Parquet
            with columns such as `image` and `labels`), `folder` (one folder per class) or `shards` (WebDataset tars);
            or one of the data sets `context`, `coco_object`, `coco_stuff` and `cityscapes` as in docs/datasets.md.
        path: the data set's root folder, the table's file, or a pattern of shards such as `data/*.tar`; fsspec URLs
            work.
        split: name of the image list, such as those in VOC's ImageSets/Segmentation, or the path of a list; for
            `coco_object` also the path of a JSON file; for `table`, `folder` and `shards` a name for reports.
        labels: `xml` are the labels that come with the images: Annotations of `voc`, the classes of the annotated
            objects of `coco_object`, none for `context`, `coco_stuff` and `cityscapes`. `masks` are the classes in the
            ground truth. `none` uses no labels. Else the path of a label file: JSON, txt or npz of image id (or key,
            file name or path) to class names, indices or one-hot vectors; COCO's JSON; `FILE.json#LIST+LIST` for the
            union of named lists in one file; JSONL with `key` and `classes`; or a folder of such files, such as the one
            that `pseudolabel filter` writes.
        masks: folder of ground-truth masks for scoring and for `labels: masks`, named as the images; their values are
            the vocabulary's indices. Not needed for data sets that come with masks.
        columns: for `table`, the columns of images, labels, keys and masks, such as `image=path,labels=tags`. By
            default `image` or `file_name`, `labels` or `label`, `key` and `mask`; the last two may be absent.
        key_prefix: for `shards`, `shard` puts the shard's name before every key, for shards that each number their
            samples from 0.
        unlabelled: images without labels are recorded and skipped (`skip`), or get a mask of background alone
            (`background`).
        max_pixels: larger images are recorded and skipped before they are decoded.
        limit: number of images to use, from the start of the sorted list; 0 uses all.
    """

    kind: str = "voc"
    path: str = ""
    split: str = "train"
    labels: str = "xml"
    masks: str = ""
    columns: str = ""
    key_prefix: Literal["", "shard"] = ""
    unlabelled: Literal["skip", "background"] = "skip"
    max_pixels: int = 100_000_000
    limit: int = 0


@dataclass(frozen=True)
class ModelConfig:
    """The frozen text-to-image diffusion model.

    Args:
        name: hub id or folder of a Stable Diffusion 1.x or 2.x checkpoint in diffusers' layout, or `shapes`, the small
            model that ships with the package.
        revision: branch, tag or commit on the hub.
        variant: file variant on the hub, such as `fp16`; empty for none.
        dtype: precision of weights and activations. `auto` is the precision of `accelerate launch --mixed_precision` if
            given, else bfloat16 on CUDA devices that have it, float16 on other CUDA devices, and float32 elsewhere.
        image_size: side in pixels of the square that images are resized to, ignoring aspect ratio; 0 is the
            checkpoint's own.
        compile: compile the U-Net's and the VAE's residual blocks and feed-forward layers, for long runs on CUDA
            devices; the first batch of a run takes minutes longer.
    """

    name: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    revision: str = "main"
    variant: str = ""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    image_size: int = 0
    compile: bool = False


@dataclass(frozen=True)
class DiffSegmenterConfig:
    """Settings of DiffSegmenter (Wang et al. 2023); docs/methods.md compares paper and released code.

    Args:
        timesteps: noise levels at which attention is read, each in one forward pass.
        prompt: one prompt `per_class`, or one for all classes of an image (`joint`): fewer forward passes, and classes
            compete for attention. Where the classes do not fit into the text encoder's tokens, there is one per class.
        joint_tail: words after the last class of a joint prompt.
        level_weights: weight of the cross-attention maps of each stride (image side / map side), Eq. 5.
        cross_layers: numbers of the cross-attention layers that are read, as `probe` lists them; all of the
            weighted strides, if there are none.
        cross_heads: heads of cross-attention that are averaged; all, if there are none.
        self_attention: which self-attention layers complete the map: those of the `highest` resolution, `all`, `none`,
            those of `self_attention_strides` (`strides`), or `self_layers` (`layers`).
        self_attention_strides: strides of the self-attention layers for `self_attention: strides`.
        self_layers: numbers of the self-attention layers for `self_attention: layers`, as `probe` lists them.
        self_heads: heads of self-attention that are averaged; all, if there are none.
        affinity: what completes the map: `attention` itself; its entries to a `power`, which sharpens it; its `peaks`
            (CLIPer); or its entries after the `entropy` step of iSeg, which removes small ones.
        affinity_value: the power; the smallest entry that is a peak, below 1; or the size of the entropy step. 0 is 2
            for the power, .1 for peaks and .015 for the entropy step.
        iterations: passes of the affinity over the map.
        level_norm: min-max normalise each resolution's map `after` upsampling, `before` it, or not (`none`, as in the
            paper's text); or divide it by its `sum` before upsampling.
        class_tokens: which tokens of a class name are read and emphasised: the `mean` of all of them, the `last` one
            alone, or `last_word` (the released code), which reads the last one and emphasises all of the last word.
        modifiers: `ing_next` averages in a word ending in "ing" right after the class name; `ing_released` does it as
            the released code, which counts punctuation as part of words and reads the one token after the name;
            `none` does not.
        emphasis: the class tokens' text embeddings move away from the empty prompt's (`relative`) or are multiplied
            (`absolute`).
        class_weight: by this factor; compel's `++` is a relative 1.21.
        timestep_average: `mean_of_products` (Eq. 7 per timestep) or `product_of_means`.
        vae: encode the image to the posterior's `mean` or draw a `sample`.
        noise: draw noise once `per_image` and share it between timesteps, or `per_timestep`.
    """

    timesteps: list[int] = field(default_factory=lambda: [1, 50, 100, 150])
    prompt: Literal["per_class", "joint"] = "per_class"
    joint_tail: str = ""
    level_weights: dict[int, float] = field(default_factory=lambda: dict(SD_LEVEL_WEIGHTS))
    cross_layers: list[int] = field(default_factory=list)
    cross_heads: list[int] = field(default_factory=list)
    self_attention: Literal["highest", "all", "none", "strides", "layers"] = "highest"
    self_attention_strides: list[int] = field(default_factory=list)
    self_layers: list[int] = field(default_factory=list)
    self_heads: list[int] = field(default_factory=list)
    affinity: Literal["attention", "power", "peaks", "entropy"] = "attention"
    affinity_value: float = 0.0
    iterations: int = 1
    level_norm: Literal["after", "before", "none", "sum"] = "after"
    class_tokens: Literal["mean", "last", "last_word"] = "mean"
    modifiers: Literal["ing_next", "ing_released", "none"] = "ing_next"
    emphasis: Literal["relative", "absolute"] = "relative"
    class_weight: float = 1.21
    timestep_average: Literal["mean_of_products", "product_of_means"] = "mean_of_products"
    vae: Literal["mean", "sample"] = "mean"
    noise: Literal["per_image", "per_timestep"] = "per_image"


@dataclass(frozen=True)
class ElboConfig:
    """Settings of the ELBO baseline (Eq. 3 of DiffSegmenter): per pixel, the class that denoises best.

    Args:
        timesteps: noise levels; the samples use them in turn.
        samples: draws of noise per image, each at one timestep and shared by all classes.
        decision: a class's score is its `softmax` among the image's classes and the empty prompt (background), or 1
            where it is the `argmax` and 0 elsewhere.
        temperature: divides the log-likelihoods before the softmax.
    """

    timesteps: list[int] = field(default_factory=lambda: [100, 300, 500, 700, 900])
    samples: int = 50
    decision: Literal["softmax", "argmax"] = "softmax"
    temperature: float = 0.01


@dataclass(frozen=True)
class DiffSegConfig:
    """Settings of DiffSeg (Tian et al. 2024); docs/methods.md compares paper and released code.

    Args:
        timestep: timestep input of the U-Net; no noise is added.
        self_layers: numbers of the self-attention layers that are aggregated, as `probe` lists them; all, if there are
            none.
        weights: each self-attention map's weight is proportional to its side: layers are averaged `per_resolution`
            first (the released code), or each layer is weighted by itself, `per_tensor` (the paper).
        grouping: `merge` is DiffSeg's iterative merging, `kmeans` its K-means baseline on the same vectors.
        anchors: M of the M x M grid of anchor points.
        iterations: passes of merging, the first one over all maps.
        threshold: tau; two maps are merged if their symmetric KL divergence is smaller.
        merging: `released` lets a seed average over proposals that other seeds already have, `strict` (Algorithm 1)
            does not.
        precision: number format in which the divergences of the first pass are compared. Logarithms have a floor in
            both; in the released float16 they do not.
        clusters: number of clusters of K-means; 0 is the number of the image's labels, with background if the
            vocabulary has it.
        fit: `crop` segments the centre square and ignores the rest (255), `stretch` segments the entire image, resized
            to a square.
        semantic: name the masks by cross-attention (Semantic DiffSeg) and merge masks of the same name.
    """

    timestep: int = 300
    self_layers: list[int] = field(default_factory=list)
    weights: Literal["per_resolution", "per_tensor"] = "per_resolution"
    grouping: Literal["merge", "kmeans"] = "merge"
    anchors: int = 16
    iterations: int = 3
    threshold: float = 1.0
    merging: Literal["released", "strict"] = "released"
    precision: Literal["float32", "float16"] = "float32"
    clusters: int = 6
    fit: Literal["crop", "stretch"] = "stretch"
    semantic: bool = False


@dataclass(frozen=True)
class CaptionConfig:
    """Captions: sentences that continue the prompt after the class name.

    Args:
        source: `none`, or the path of a captions file (JSONL with `key`, `class`, `caption`) or of a folder of such
            files, such as the one that `pseudolabel caption` writes.
        model: hub id or folder of the captioner, such as BLIP, BLIP-2 or GIT, or `shapes`, the small one that ships
            with the package.
        max_new_tokens: largest number of tokens that are added to a caption's given first words.
        max_length: largest number of tokens in all, with the given first words and the token that begins a sentence;
            the released code has 20, which leaves 15 after `a photograph of dog`. 0 is no limit.
        beams: width of beam search; 1 is greedy decoding.
        batch: captions per forward pass.
    """

    source: str = "none"
    model: str = "Salesforce/blip-image-captioning-large"
    max_new_tokens: int = 20
    max_length: int = 0
    beams: int = 1
    batch: int = 16


@dataclass(frozen=True)
class WorkConfig:
    """How the work is divided and fed; nothing depends on the number of processes.

    Args:
        unit: samples per work unit; one unit becomes one shard.
        batch: (image, class, timestep) triples per U-Net forward.
        seed: an image's noise is drawn from (seed, key).
        workers: processes per rank that run DenseCRF or scoring; 0 divides all cores among the ranks of a machine.
        loaders: threads per rank that read and decode images ahead of the model.
    """

    unit: int = 256
    batch: int = 16
    seed: int = 0
    workers: int = 0
    loaders: int = 4


@dataclass(frozen=True)
class CrfConfig:
    """DenseCRF (Kraehenbuehl and Koltun 2011) over background and the image's classes.

    The defaults are those of CLIP-ES for VOC, the preset `clip-es`.

    Args:
        iterations: mean-field steps; 0 skips the CRF and uses the largest score (the preset `none`).
        gaussian_sxy: sigma in pixels of the smoothness kernel.
        gaussian_weight: weight of the smoothness kernel.
        bilateral_sxy: spatial sigma in pixels of the appearance kernel.
        bilateral_srgb: colour sigma in grey levels of the appearance kernel.
        bilateral_weight: weight of the appearance kernel.
        background: score of background: `power` is (1 - largest CAM) ** value, `threshold` is the value itself.
        background_value: exponent or threshold.
        ignore_below: pixels whose winning probability is smaller become 255; 0 keeps every pixel.
        image: the image in the appearance kernel: `rgb`, or `wrapped`, CLIP-ES's mean-subtracted BGR that overflows.
        engine: `pydensecrf` runs on processor cores, one image on each. `torch` runs on the model's device, many images
            at once, and gives the same labels; images of more than 4 million pixels still use pydensecrf. `auto` is
            `torch` on CUDA devices and `pydensecrf` elsewhere.
    """

    iterations: int = 10
    gaussian_sxy: float = 1.0
    gaussian_weight: float = 3.0
    bilateral_sxy: float = 67.0
    bilateral_srgb: float = 3.0
    bilateral_weight: float = 4.0
    background: Literal["power", "threshold"] = "power"
    background_value: float = 1.0
    ignore_below: float = 0.95
    image: Literal["rgb", "wrapped"] = "rgb"
    engine: Literal["auto", "pydensecrf", "torch"] = "auto"


@dataclass(frozen=True)
class FreeSegDiffConfig:
    """Settings of FreeSeg-Diff (Corradini et al. 2024); docs/methods.md compares paper and released code.

    Args:
        timestep: timestep input of the U-Net.
        noise: whether noise of that level is added to the latent (the released code).
        vae: encode the image to the posterior's `mean` or draw a `sample` (the released code).
        features: what is clustered: cross-attention's `queries`, residual blocks' outputs (`resblock`), attention
            blocks' outputs (`attention`), or residual blocks and attention (`both`).
        backbone: hub id or folder of a vision transformer (CLIP, ViT, DINOv2) whose patch tokens are clustered instead
            of the diffusion model's features; empty for none.
        strides: strides (image side / map side) of the layers whose features are used; 32 is 16 x 16 at 512 pixels.
        side: features of all layers are resized to a square of this side before they are concatenated.
        clusters: K of K-means.
        restarts: number of K-means runs, of which the best is kept.
        clip: hub id or folder of the CLIP checkpoint that names regions, or `shapes`.
        template: sentence with one `{}` for the class; the released code has the bare name, `{}`.
        background_words: whether the vocabulary's words for background, such as grass, compete for regions. This is
            our addition; the paper has classes only.
        naming: a region gets the candidate class that is nearest of all words, else background (`paper`); or regions
            are assigned to candidates by softmax, at most one to each class (`released`).
        enlarge: how clusters are enlarged to the image's size: each pixel gets the cluster at its centre
            (`nearest_exact`) or at its upper left corner (`nearest`, the released code), as torch's modes of these
            names do.
        refinement: DenseCRF over all regions at once (`multi_label`), for each cluster by itself (`per_cluster`, the
            released code; a pixel that several clusters claim gets the first one), or `none`.
        certainty: probability of a pixel's own label in the CRF's input.
        crf: kernels and steps of the CRF; its settings of background and ignored pixels are not used.
    """

    timestep: int = 0
    noise: bool = False
    vae: Literal["mean", "sample"] = "mean"
    features: Literal["queries", "resblock", "attention", "both"] = "queries"
    backbone: str = ""
    strides: list[int] = field(default_factory=lambda: [32])
    side: int = 32
    clusters: int = 4
    restarts: int = 10
    clip: str = "openai/clip-vit-base-patch32"
    template: str = "a photo of a {}"
    background_words: bool = True
    naming: Literal["paper", "released"] = "paper"
    enlarge: Literal["nearest_exact", "nearest"] = "nearest_exact"
    refinement: Literal["multi_label", "per_cluster", "none"] = "multi_label"
    certainty: float = 0.7
    crf: CrfConfig = field(
        default_factory=lambda: CrfConfig(
            gaussian_sxy=20.0, gaussian_weight=5.0, bilateral_sxy=20.0, bilateral_srgb=20.0, bilateral_weight=100.0
        )
    )


@dataclass(frozen=True)
class FilterConfig:
    """Prediction of an image's classes from the image alone (the zero-shot setting).

    The predicted classes are the union of those by the image and those by its captions.

    Args:
        image: classes by CLIP's similarity of image and text: those of at least `image_threshold` times the largest
            (`relative`, the released code), those with a cosine above it (`absolute`, the paper's text), or `none`.
        image_threshold: share of the largest similarity, or cosine.
        clip: hub id or folder of the CLIP checkpoint, or `shapes`, the small one that ships with the package.
        template: sentence with one `{}` for the class.
        nouns: classes by the captions' nouns: those whose text embedding has a cosine above `noun_threshold` with a
            noun's (`similarity`), those whose name or synonym is a noun (`synonyms`), `both`, FreeSeg-Diff's `nearest`
            class unless it is farther than the mean class, its released `mean_of_minima`, or `none`.
        noun_threshold: smallest cosine for `similarity`.
        spacy: name or folder of the spaCy pipeline that finds the nouns, or `shapes`, the small one that ships.
        prefixes: first words of captions; one caption is generated for each.
    """

    image: Literal["relative", "absolute", "none"] = "relative"
    image_threshold: float = 0.97
    clip: str = "openai/clip-vit-large-patch14"
    template: str = "A photo of a {}"
    nouns: Literal["similarity", "synonyms", "both", "nearest", "mean_of_minima", "none"] = "similarity"
    noun_threshold: float = 0.8
    spacy: str = "en_core_web_sm"
    prefixes: list[str] = field(default_factory=lambda: ["", "A picture of"])


@dataclass(frozen=True)
class EvaluateConfig:
    """Scoring against ground truth.

    Args:
        threshold: the fixed background threshold of CAM scores; choose it on images other than the scored ones.
        threshold_chosen_on: the split on which the threshold was chosen, printed beside the score.
        plots: write PNG plots beside the metrics.
    """

    threshold: float = 0.45
    threshold_chosen_on: str = "not chosen (default)"
    plots: bool = True


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
        diffseg: settings of DiffSeg and its K-means baselines.
        freesegdiff: settings of FreeSeg-Diff.
        captions: sentences that continue the prompt.
        filter: prediction of classes for images without labels.
        work: units, batches and workers.
        crf: DenseCRF's parameters.
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
