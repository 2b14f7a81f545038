"""SDXL and SSD-1B: against diffusers' own pipeline, and against the plain way of reading attention."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, EDMEulerScheduler, StableDiffusionXLPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

import pseudolabel as pl
from pseudolabel.config import DiffSegmenterConfig, ModelConfig
from pseudolabel.diffusion.layers import attention_layers
from pseudolabel.diffusion.load import fingerprint, load_model
from pseudolabel.diffusion.noise import draw_noise
from pseudolabel.diffusion.recording import read_attention
from pseudolabel.errors import ModelError
from pseudolabel.score_maps import at_image_size
from pseudolabel.shapes.world import draw_scene
from pseudolabel.text.encoder import TextEncodings
from tests.plain import diffsegmenter as plain
from tests.plain.architectures import loaded, tiny, tiny_xl

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
SENTENCES = ["a photograph of red star", "", "a photograph of " + "circle " * 100]
SENTENCE = SENTENCES[0]
NAMES = ["tiny_xl", "tiny_ssd"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_xl(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def copy(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "copy")


def load(folder, **settings):
    return load_model(ModelConfig(name=str(folder), **settings), CPU)


def scene(number):
    return draw_scene(np.random.default_rng(number)).image


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def change(path, **values):
    """Change values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@torch.inference_mode()
def test_text_is_encoded_as_by_diffusers_pipeline(checkpoint):
    pipeline = StableDiffusionXLPipeline.from_pretrained(checkpoint, add_watermarker=False)
    tokens, _, pooled, _ = pipeline.encode_prompt(SENTENCES, do_classifier_free_guidance=False)
    found = load(checkpoint).encode_text(SENTENCES)
    assert found.shape == (3, 78, 56)
    torch.testing.assert_close(found[:, :77], tokens)
    torch.testing.assert_close(found[:, 77, :20], pooled)
    assert not found[:, 77, 20:].any()
    assert (pooled[0] - pooled[1]).abs().max() > 0.1


@torch.inference_mode()
def test_the_unet_is_called_as_by_diffusers_pipeline(checkpoint):
    """One step of sampling without guidance: what its U-Net is given, and what comes out."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(checkpoint, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    calls = []
    pipeline.unet.register_forward_hook(lambda _, *call: calls.append(call), with_kwargs=True)
    pipeline(SENTENCE, num_inference_steps=1, guidance_scale=1.0, output_type="latent")
    (((latents, timestep), given, (expected,)),) = calls
    assert given["added_cond_kwargs"]["time_ids"].tolist() == [[192, 192, 0, 0, 192, 192]]
    model = load(checkpoint)
    found = model.run_unet(latents, timestep, model.encode_text([SENTENCE]))
    torch.testing.assert_close(found, expected)
    other = model.run_unet(latents, timestep, model.encode_text([SENTENCE])[:, [*range(77), 76]])
    assert (other - expected).abs().max() > 1e-2, "the pooled embedding makes no difference"
    smaller = replace(model, image_size=96).run_unet(latents, timestep, model.encode_text([SENTENCE]))
    assert (smaller - expected).abs().max() > 1e-3, "the image's size makes no difference"


@torch.inference_mode()
def test_latents_are_scaled_as_by_diffusers_pipeline(checkpoint):
    pipeline = StableDiffusionXLPipeline.from_pretrained(checkpoint, add_watermarker=False)
    model, images = load(checkpoint), [scene(number).resize((192, 192)) for number in range(2)]
    pixels = pipeline.image_processor.preprocess(images)
    expected = pipeline.vae.encode(pixels).latent_dist.mean * 0.13025
    torch.testing.assert_close(model.encode(torch.stack([model.pixels(image) for image in images])), expected)
    noise = normal(2, *model.latent_shape)
    sampled = model.encode(pixels, noise) - model.encode(pixels)
    torch.testing.assert_close(sampled, pipeline.vae.encode(pixels).latent_dist.std * noise * 0.13025)


def test_the_noise_schedule_is_that_of_the_scheduler_s_file(checkpoint):
    """An Euler scheduler's, whose betas are Stable Diffusion's."""
    assert torch.equal(load(checkpoint).alphas_cumprod, loaded("tiny").alphas_cumprod)


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_recorded_attention_equals_full_matrices(name):
    model = loaded(name)
    layers, latents = attention_layers(model.unet, model.vae_stride), normal(2, *model.latent_shape)
    assert {layer.stride for layer in layers} == {16, 32}
    weights = torch.rand(2, 77, generator=torch.Generator().manual_seed(1))
    recording = read_attention(model, latents, 100, model.encode_text(SENTENCES[:2]), layers, weights)
    for row, sentence in enumerate(SENTENCES[:2]):
        text, pooled = plain.encode_text(model, sentence), plain.pool_text(model, sentence)
        matrices = plain.attend(model, latents[row], 100, text, pooled)
        assert [matrix.stride for matrix in matrices] == [layer.stride for layer in layers]
        for layer, matrix in zip(layers, matrices, strict=True):
            if layer.kind == "cross":
                found, expected = recording.cross[layer][row], matrix.probabilities.mean(0) @ weights[row]
            else:
                query, key = (one[row] for one in recording.queries_keys[layer])
                found, expected = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1), matrix.probabilities
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)


def test_emphasis_leaves_the_sentence_s_own_row():
    model, emphasis = loaded("tiny_xl"), torch.ones(77)
    emphasis[4:8] = 1.21
    encodings = TextEncodings(model, [SENTENCE])
    empty, embeddings = model.encode_text([""])[0], encodings.plain(SENTENCE)
    found = encodings.emphasised(SENTENCE, emphasis)
    torch.testing.assert_close(found[4:8], empty[4:8] + 1.21 * (embeddings[4:8] - empty[4:8]))
    assert torch.equal(found[77], embeddings[77])
    absolute = TextEncodings(model, [SENTENCE], "absolute").emphasised(SENTENCE, 2 * torch.ones(77))
    torch.testing.assert_close(absolute[:77], 2 * embeddings[:77])
    assert torch.equal(absolute[77], embeddings[77])


@pytest.mark.parametrize(("upcast", "dtype"), [(True, torch.float32), (False, torch.float16)])
def test_the_vae_is_float32_where_its_configuration_says_so(copy, upcast, dtype):
    change(copy / "vae" / "config.json", force_upcast=upcast)
    model = load(copy, dtype="float16")
    assert model.vae.dtype == dtype
    assert {part.dtype for part in (model.unet, model.text_encoder, model.text_encoder_2)} == {torch.float16}
    if upcast:
        pixels = torch.rand(2, 3, 192, 192) * 2 - 1
        assert torch.equal(model.encode(pixels), loaded("tiny_xl").encode(pixels))


def test_half_precision_files_of_every_part_are_found(checkpoint, copy):
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        (path,) = (copy / part).glob("*.safetensors")
        path.rename(path.with_suffix(f".fp16{path.suffix}"))
    assert torch.equal(load(copy).encode_text([SENTENCE]), load(checkpoint).encode_text([SENTENCE]))
    assert fingerprint(ModelConfig(name=str(copy))) == fingerprint(ModelConfig(name=str(checkpoint)))


def test_the_fingerprint_depends_on_the_second_text_encoder(checkpoint, copy):
    (path,) = (copy / "text_encoder_2").glob("*.safetensors")
    weights = load_file(path)
    weights["text_projection.weight"][0, 0] += 1
    save_file(weights, path, {"format": "pt"})
    assert fingerprint(ModelConfig(name=str(copy))) != fingerprint(ModelConfig(name=str(checkpoint)))


@pytest.mark.parametrize(("part", "message"), [("text_encoder_2",) * 2, ("tokenizer_2", "the second tokenizer's")])
def test_a_missing_part_is_named(copy, part, message):
    shutil.rmtree(copy / part)
    with pytest.raises(ModelError, match=f"{copy}.*{message}"):
        load(copy)


@pytest.mark.parametrize(
    ("index", "problem"),
    [
        (  # the refiner's
            {"_class_name": "StableDiffusionXLImg2ImgPipeline", "text_encoder": [None, None]},
            "is a StableDiffusionXLImg2ImgPipeline: it has no part `text_encoder`, CLIPTextModel",
        ),
        (
            {"_class_name": "StableDiffusion3Pipeline", "unet": None, "transformer": ["diffusers", "SD3Transformer2D"]},
            "is a StableDiffusion3Pipeline: it has no part `unet`, UNet2DConditionModel",
        ),
        (
            {"_class_name": "FluxPipeline", "unet": None},
            "is a FluxPipeline: it has no part `unet`, UNet2DConditionModel",
        ),
        (
            {"_class_name": "KolorsPipeline", "text_encoder": ["kolors", "ChatGLMModel"]},
            "is a KolorsPipeline: its part `text_encoder` is ChatGLMModel, not CLIPTextModel",
        ),
    ],
)
def test_other_pipelines_are_refused_before_they_are_loaded(copy, index, problem):
    change(copy / "model_index.json", **index)
    shutil.rmtree(copy / "unet")
    with pytest.raises(ModelError) as caught:
        load(copy)
    assert str(caught.value) == (
        f"'{copy}' (`model.name`) {problem}. Supported are complete text-to-image checkpoints of Stable Diffusion 1.x "
        "and 2.x (StableDiffusionPipeline), and of SDXL and SSD-1B (StableDiffusionXLPipeline)"
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"in_channels": 9}, "U-Net's channels and the VAE's differ, 9 and 4"),  # inpainting
        ({"projection_class_embeddings_input_dim": 5 * 8 + 20}, "6 numbers and the second text encoder differ, 60"),
        ({"cross_attention_dim": 32}, "text width and the text encoders' differ, 32 and 56"),
        ({"class_embed_type": "timestep"}, "takes more than text (`class_embed_type` is timestep)"),
    ],
)
def test_unets_that_take_something_else_are_refused(tmp_path, changes, problem):
    with pytest.raises(ModelError) as caught:
        load(tiny_xl(tmp_path, **changes))
    assert "is a StableDiffusionXLPipeline: " in str(caught.value)
    assert problem in str(caught.value)


def test_other_schedules_and_latents_are_refused(copy):
    """Those of Playground 2.5, for one."""
    change(copy / "vae" / "config.json", latents_mean=[0.0, 0.0, 0.0, 0.0])
    with pytest.raises(ModelError, match="its VAE shifts latents"):
        load(copy)
    EDMEulerScheduler().save_pretrained(copy / "scheduler")
    with pytest.raises(ModelError, match="EDMEulerScheduler has no beta schedule"):
        load(copy)


def test_two_tokenizers_must_agree(copy):
    path = copy / "tokenizer_2" / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["star</w>"], vocabulary["circle</w>"] = vocabulary["circle</w>"], vocabulary["star</w>"]
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="its two tokenizers do not have the same tokens"):
        load(copy)


def test_cams_of_a_folder(checkpoint, experiment):
    """A run's score maps are those of the equations, with the default weights; a second run finds them done."""
    settings = {"model.name": str(checkpoint), "diffsegmenter.timesteps": [100]}
    first = pl.cams(experiment, settings)
    assert first.statuses == {"ok": 5}
    model, config = loaded("tiny_xl"), DiffSegmenterConfig(timesteps=[100], level_weights={32: 0.5, 16: 0.1})
    for item in pl.ShardDataset(f"{experiment.out}/cams"):
        sentences = [plain.write_sentence("a photograph of {}", name) for name in item["classes"]]
        image = Image.fromarray(item["image"].permute(1, 2, 0).numpy())
        noise = draw_noise(0, "noise", item["key"], 1, model.latent_shape)
        maps = torch.stack([plain.stretch(one) for one in plain.score_maps(model, config, image, sentences, noise)])
        torch.testing.assert_close(item["scores"], torch.as_tensor(at_image_size(maps, image.size)), atol=5e-3, rtol=0)
    assert pl.cams(experiment, settings) == first


def test_a_checkpoint_without_an_index_is_judged_by_its_parts(copy, tmp_path):
    (copy / "model_index.json").unlink()
    assert load(copy).text_encoder_2 is not None
    inpainting = tiny(tmp_path / "inpainting", in_channels=9)
    DDPMScheduler().save_pretrained(inpainting / "scheduler")
    with pytest.raises(ModelError, match=r"cannot be used: the U-Net's channels and the VAE's differ, 9 and 4. Supp"):
        load(inpainting)
