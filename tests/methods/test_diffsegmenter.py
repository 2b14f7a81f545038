"""The fast path against DiffSegmenter written plainly from its equations (tests/plain/diffsegmenter.py)."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pseudolabel.config import DiffSegmenterConfig, ModelConfig
from pseudolabel.diffusion.load import load_model
from pseudolabel.errors import SettingError
from pseudolabel.experiment_file import open_experiment
from pseudolabel.methods.affinity import affinity, propagate, spread
from pseudolabel.methods.diffsegmenter import CompletedAttention
from pseudolabel.score_maps import at_image_size, label_map, min_max
from pseudolabel.shapes.world import draw_scene
from pseudolabel.text.encoder import TextEncodings
from pseudolabel.text.prompts import build_prompt, token_weights
from tests.plain import diffsegmenter as plain
from tests.plain.architectures import loaded

pytestmark = pytest.mark.slow

MODELS = ["tiny", "tiny_v2", "shapes"]
TOLERANCE = 1e-4
# Self-attention flattens a map: a range of 1e-4 around .02 leaves float32 few digits once it is stretched to [0, 1].
STRETCHED_TOLERANCE = 1e-3
VISIBLE = 1e-2
SIZE = (110, 150)
THRESHOLD = 0.45
TEMPLATE = "a photograph of {}"
ONE = [(TEMPLATE, "circle", "")]
SEVERAL = [
    (TEMPLATE, "star", ""),
    (TEMPLATE, "red car", "a photograph of red car driving, seen on a road"),
    ("one {} of many", "heart", "a heart on checks"),
]
CHANGES = [
    {"vae": "sample"},
    {"noise": "per_timestep"},
    {"level_norm": "before"},
    {"level_norm": "none"},
    {"level_norm": "sum"},
    {"emphasis": "absolute"},
    {"class_tokens": "last"},
    {"class_tokens": "last_word"},
    {"modifiers": "none"},
    {"modifiers": "ing_released"},
    {"class_weight": 1.0},
    {"class_weight": 1.1**3},
    {"self_attention": "all"},
    {"self_attention": "none"},
    {"self_attention": "strides", "self_attention_strides": [32, 16]},
    {"timestep_average": "product_of_means"},
    {"timesteps": [0, 999]},
    {"level_weights": {16: 0.25, 64: 0.75}},
    {"cross_layers": [1, 4, 6], "level_weights": {8: 0.5, 32: 0.3, 64: 0.2}},
    {"cross_heads": [1]},
    {"head_weights": "output", "level_norm": "none"},
    {"level_weights": "resolution"},
    {"level_weights": "resolution", "cross_layers": [1, 4, 6], "level_norm": "none"},
    {"self_attention": "layers", "self_layers": [2, 15]},
    {"self_heads": [0]},
    {"iterations": 3},
    {"affinity": "power"},
    {"affinity": "power", "affinity_value": 3.5, "iterations": 2, "self_attention": "all"},
    {"affinity": "peaks", "iterations": 2},
    {"affinity": "peaks", "affinity_value": 0.9, "iterations": 2},
    {"affinity": "entropy", "affinity_value": 1.0},
]
XL = {"level_weights": {32: 0.5, 16: 0.1}}
XL_CHANGES = [
    {},
    {"vae": "sample", "noise": "per_timestep", "level_norm": "before"},
    {"emphasis": "absolute", "class_tokens": "last_word", "self_attention": "all"},
    {"level_weights": "resolution", "head_weights": "output", "level_norm": "none"},
    {"self_attention": "layers", "self_layers": [1, 6], "affinity": "power", "iterations": 2},
]
RELEASED = {"class_tokens": "last_word", "modifiers": "ing_released", "vae": "sample"}


def scene():
    return draw_scene(np.random.default_rng(0)).image.resize((SIZE[1], SIZE[0]))


def normal(model, count, seed):
    return torch.randn(count, *model.latent_shape, generator=torch.Generator().manual_seed(seed))


def draw(model, config):
    """Noise of the image, and of its posterior where one is drawn from."""
    count = len(config.timesteps) if config.noise == "per_timestep" else 1
    return normal(model, count, 1), normal(model, 1, 2)[0] if config.vae == "sample" else None


def fast_maps(model, config, prompts):
    noise, posterior_noise = draw(model, config)
    latents = model.encode(model.pixels(scene())[None], None if posterior_noise is None else posterior_noise[None])
    tokens = [token_weights(model.tokenizer, build_prompt(*prompt), config) for prompt in prompts]
    encodings = TextEncodings(model, [one.text for one in tokens], config.emphasis)
    return CompletedAttention(model, config)(
        latents.expand(len(tokens), -1, -1, -1),
        noise.expand(len(tokens), *noise.shape),
        torch.stack([encodings.emphasised(one.text, one.emphasis) for one in tokens]),
        torch.stack([one.weights for one in tokens])[:, None],
    )[:, 0]


def plain_maps(model, config, prompts, **options):
    sentences = [plain.write_sentence(*prompt) for prompt in prompts]
    noise, posterior_noise = draw(model, config)
    return plain.score_maps(model, config, scene(), sentences, noise, posterior_noise, **options)


def stretched(maps):
    return torch.stack([plain.stretch(one_map) for one_map in maps])


def assert_same(maps, others):
    assert maps.shape == others.shape
    assert (maps - others).abs().max() <= TOLERANCE
    assert (stretched(maps) - stretched(others)).abs().max() <= STRETCHED_TOLERANCE


def labels(maps):
    return label_map(at_image_size(maps, SIZE), tuple(range(1, len(maps) + 1)), THRESHOLD)


def assert_agreement(model, config, prompts):
    fast, plainly = fast_maps(model, config, prompts), plain_maps(model, config, prompts)
    assert fast.dtype == torch.float32
    assert_same(fast, plainly)
    found = labels(fast)
    assert len(np.unique(found)) > 1
    assert (found == labels(plainly)).mean() >= 0.999


@pytest.mark.parametrize("prompts", [ONE, SEVERAL], ids=["one class", "several classes"])
@pytest.mark.parametrize("timesteps", [[100], [1, 50, 100, 150]], ids=["one timestep", "four timesteps"])
@pytest.mark.parametrize("name", MODELS)
def test_maps_agree_with_the_equations(name, timesteps, prompts):
    assert_agreement(loaded(name), DiffSegmenterConfig(timesteps=timesteps), prompts)


@pytest.mark.parametrize("change", [*CHANGES, RELEASED], ids=str)
def test_maps_agree_for_every_option(change):
    assert_agreement(loaded("tiny"), replace(DiffSegmenterConfig(timesteps=[50, 150]), **change), SEVERAL)


def test_the_released_settings_ship_as_a_file():
    shipped = open_experiment("diffsegmenter_released")
    assert shipped.diffsegmenter == DiffSegmenterConfig(**RELEASED)
    assert shipped.captions.max_length == 20


@pytest.mark.parametrize("preset", ["iseg_voc", "iseg_coco", "best_voc"])
def test_presets_of_iseg_read_the_layers_that_they_name(preset):
    # The small model's top level has two heads.
    config = replace(open_experiment(preset).diffsegmenter, self_heads=[0, 1])
    method = CompletedAttention(loaded("tiny_v2"), config)
    assert [layer.name for layer in method.self_layers] == ["up_blocks.3.attentions.1.transformer_blocks.0.attn1"]
    read = {layer.name.removesuffix(".transformer_blocks.0.attn2") for layer in method.cross_layers}
    sixteen = {f"down_blocks.2.attentions.{n}" for n in (0, 1)} | {f"up_blocks.1.attentions.{n}" for n in (0, 1, 2)}
    assert read == sixteen | {"down_blocks.1.attentions.1", "up_blocks.2.attentions.0", "up_blocks.2.attentions.1"}
    assert_agreement(loaded("tiny_v2"), replace(config, joint_tail="", prompt="per_class", iterations=2), SEVERAL)


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_option_matters(change):
    """Agreement is meaningful only if a method with other settings would not agree."""
    config, model = DiffSegmenterConfig(timesteps=[50, 150]), loaded("tiny")
    fast, other = fast_maps(model, config, SEVERAL), plain_maps(model, replace(config, **change), SEVERAL)
    assert (stretched(fast) - stretched(other)).abs().max() > VISIBLE


@pytest.mark.parametrize("name", MODELS)
def test_the_unconditional_half_changes_nothing(name):
    config = DiffSegmenterConfig(timesteps=[100])
    assert_same(fast_maps(loaded(name), config, ONE), plain_maps(loaded(name), config, ONE, guidance_pair=True))


@pytest.mark.parametrize("change", XL_CHANGES, ids=str)
@pytest.mark.parametrize("name", ["tiny_xl", "tiny_ssd"])
def test_maps_of_sdxl_agree_with_the_equations(name, change):
    assert_agreement(loaded(name), replace(DiffSegmenterConfig(timesteps=[50, 150]), **XL | change), SEVERAL)


def test_sdxl_s_default_weights_are_the_paper_s_for_its_strides(caplog):
    config, model = DiffSegmenterConfig(timesteps=[100]), loaded("tiny_xl")
    with caplog.at_level("INFO", "pseudolabel"):
        maps = fast_maps(model, config, ONE)
    assert "`diffsegmenter.level_weights`, {32: 0.5, 16: 0.1} are used, unmeasured" in caplog.text
    assert_same(maps, plain_maps(model, replace(config, **XL), ONE))
    assert (stretched(maps) - stretched(fast_maps(model, replace(config, level_weights={32: 1.0}), ONE))).max() > 0.01
    with pytest.raises(SettingError, match=r"no cross-attention at stride 64, only at \[16, 32\]"):
        CompletedAttention(model, replace(config, level_weights={64: 0.3, 32: 0.5}))


def test_the_unconditional_half_changes_nothing_for_sdxl():
    config, model = DiffSegmenterConfig(timesteps=[100], **XL), loaded("tiny_xl")
    assert_same(fast_maps(model, config, ONE), plain_maps(model, config, ONE, guidance_pair=True))


@pytest.mark.parametrize("name", MODELS)
def test_a_map_does_not_depend_on_its_batch(name):
    config = DiffSegmenterConfig(timesteps=[50, 150])
    together = fast_maps(loaded(name), config, SEVERAL)
    alone = torch.cat([fast_maps(loaded(name), config, [prompt]) for prompt in SEVERAL])
    assert_same(together, alone)


def test_bfloat16_labels_are_nearly_equal():
    config = DiffSegmenterConfig()
    half = load_model(ModelConfig(name="shapes", dtype="bfloat16"), torch.device("cpu"))
    found, expected = labels(fast_maps(half, config, SEVERAL)), labels(fast_maps(loaded("shapes"), config, SEVERAL))
    assert (found == expected).mean() > 0.95


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("kind", ["attention", "power", "peaks", "entropy"])
def test_several_maps_at_once_equal_single_ones(kind, iterations):
    """More maps than a head has channels, whose passes are done in parts."""
    generator = torch.Generator().manual_seed(0)
    query, key = (3 * torch.randn(2, 3, 25, 6, generator=generator) for _ in range(2))
    maps = torch.rand(2, 8, 25, generator=generator)
    config = DiffSegmenterConfig(affinity=kind, affinity_value=0.5, iterations=iterations)
    single = [spread(query, key, maps[:, number : number + 1], config) for number in range(8)]
    torch.testing.assert_close(spread(query, key, maps, config), torch.cat(single, 1))


def test_a_position_without_peaks_keeps_its_value():
    query, key = torch.zeros(1, 4, 2), torch.zeros(1, 4, 2)
    key = torch.tensor([[[9.0, 0], [0, 0], [0, 0], [0, 0]]])  # the first position draws all attention of the others
    query = torch.tensor([[[9.0, 0], [3, 0], [0, 9], [0, 9]]])
    matrix = affinity(query, key, DiffSegmenterConfig(affinity="peaks", affinity_value=0.5))
    torch.testing.assert_close(matrix.sum(1), torch.ones(4))
    torch.testing.assert_close(matrix[1], torch.tensor([1.0, 0, 0, 0]))


@pytest.mark.parametrize("kind", ["power", "peaks", "entropy"])
def test_a_position_without_any_attention(kind):
    """Attention to it is less than float32 can hold."""
    query = torch.full((1, 16, 4), 6.0)
    key = query.clone()
    key[0, 3] = -6
    matrix = affinity(query, key, DiffSegmenterConfig(affinity=kind))
    torch.testing.assert_close(matrix.sum(1), torch.ones(16))
    assert matrix[0, 3] == 0


def test_an_affinity_is_made_in_blocks(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(3, 25, 6, generator=generator) for _ in range(2))
    config = DiffSegmenterConfig(affinity="entropy", affinity_value=0.3)
    at_once = affinity(query, key, config)
    monkeypatch.setattr("pseudolabel.methods.affinity.BLOCK", 200)  # two rows of attention, eight of the matrix
    torch.testing.assert_close(affinity(query, key, config), at_once)


def test_propagate_keeps_small_differences_in_bfloat16():
    """A map of small differences around a large mean, as self-attention leaves them."""
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 4, 64, 8, generator=generator).bfloat16() for _ in range(2))
    values = 0.5 + 0.01 * torch.rand(1, 1, 64, generator=generator)
    exact = propagate(query.float(), key.float(), values)
    assert (propagate(query, key, values) - exact).abs().max() < 0.02 * (exact.max() - exact.min())


def test_results_agree_on_the_architecture_of_stable_diffusion_v15(stable_diffusion):
    """At half its size, which takes a quarter of the time."""
    model = load_model(ModelConfig(name=str(stable_diffusion), dtype="float32", image_size=256), torch.device("cpu"))
    assert model.latent_shape == (4, 32, 32)
    assert_agreement(model, DiffSegmenterConfig(timesteps=[100]), SEVERAL[:1])


def test_weights_by_resolution_are_those_of_goca():
    """Its shares for the maps of 64, 32, 16 and 8 of Stable Diffusion 1.5, whose layers this model has."""
    weights = CompletedAttention(loaded("tiny"), DiffSegmenterConfig(level_weights="resolution")).level_weights
    assert weights == pytest.approx({8: 0.030, 16: 0.118, 32: 0.473, 64: 0.379}, abs=5e-4)


def test_propagate_is_the_matrix_product():
    generator = torch.Generator().manual_seed(0)
    query, key = (3 * torch.randn(2, 3, 25, 6, generator=generator) for _ in range(2))
    values = torch.rand(2, 1, 25, generator=generator)
    matrix = (query @ key.transpose(-1, -2) / 6**0.5).softmax(-1).mean(1)
    torch.testing.assert_close(propagate(query, key, values), torch.einsum("bnm,bkm->bkn", matrix, values))


def test_min_max_of_a_constant_map_is_zero():
    maps = min_max(torch.stack([torch.full((3, 3), 0.7), torch.arange(9.0).reshape(3, 3)]))
    torch.testing.assert_close(maps, torch.stack([torch.zeros(3, 3), torch.arange(9.0).reshape(3, 3) / 8]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timesteps": []}, "timesteps"),
        ({"timesteps": [1000]}, "0 to 999"),
        ({"timesteps": [-1]}, "0 to 999"),
        ({"level_weights": {8: 0.0}}, "level_weights"),
        ({"level_weights": {8: 0.5, 128: 0.5}}, r"\[8, 16, 32, 64\]"),
        ({"self_attention": "strides"}, "self_attention_strides"),
        ({"self_attention": "strides", "self_attention_strides": [4]}, r"\[8, 16, 32, 64\]"),
        ({"self_attention": "layers"}, "self_layers"),
        ({"self_layers": [2]}, "`diffsegmenter.self_layers` .* add `self_attention: layers`"),
        ({"self_heads": [1, 1]}, "twice"),
        ({"cross_layers": [0, 0]}, "twice"),
        ({"self_attention": "layers", "self_layers": [16]}, r"self_layers` \[16\]: .* layers 0 to 15"),
        ({"cross_layers": [-1]}, "cross_layers"),
        ({"cross_layers": [0]}, r"have the strides \[8\], but `level_weights` weigh \[8, 16, 32, 64\]"),
        ({"cross_heads": [2]}, "heads 0 to 1"),
        ({"self_heads": [-1]}, "heads 0 to 1"),
        ({"affinity": "peaks", "affinity_value": 1.0}, r"no entry would be a peak; .* or 0 for 0.1"),
        ({"level_weights": {8: -1.0, 16: 1.0}}, "at least 0"),
        ({"head_weights": "output", "cross_heads": [1]}, r"`diffsegmenter.cross_heads` \[1\]: `head_weights: output`"),
    ],
    ids=str,
)
def test_settings_beyond_the_model_are_refused(change, message):
    with pytest.raises(SettingError, match=message):
        CompletedAttention(loaded("tiny"), DiffSegmenterConfig(**change))
