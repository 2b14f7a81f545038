from collections import Counter

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor

from pseudolabel.diffusion.features import feature_layers, read_features
from tests.plain.architectures import V15_UNET, loaded

KINDS = ["queries", "resblock", "attention"]


@pytest.fixture(params=["tiny", "tiny_v2", "shapes"])
def model(request):
    return loaded(request.param)


def inputs(model):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, *model.latent_shape, generator=generator)
    return latents, torch.randn(2, 77, model.unet.config.cross_attention_dim, generator=generator)


def chosen(model, kinds, strides):
    return [
        layer
        for layer in feature_layers(model.unet, model.vae_stride)
        if layer.kind in kinds and layer.stride in strides
    ]


def record(model, layers):
    latents, embeddings = inputs(model)
    return read_features(model, latents, 100, embeddings, layers)


def test_layers_of_stable_diffusion():
    with torch.device("meta"):
        layers = feature_layers(UNet2DConditionModel(**V15_UNET), vae_stride=8)
    count = Counter((layer.kind, layer.stride) for layer in layers)
    for kind in ("queries", "attention"):
        assert [count[kind, stride] for stride in (8, 16, 32, 64)] == [5, 5, 5, 1]
    # Two on the way down and three up at each resolution, two in the middle.
    assert [count["resblock", stride] for stride in (8, 16, 32, 64)] == [5, 5, 5, 2 + 2 + 3]
    at_32 = [layer.name.split(".transformer")[0] for layer in layers if (layer.kind, layer.stride) == ("queries", 32)]
    down, up = ([f"{side}_blocks.{block}.attentions" for side, block in pair] for pair in ([("down", 2)], [("up", 1)]))
    assert at_32 == [f"{down[0]}.{number}" for number in range(2)] + [f"{up[0]}.{number}" for number in range(3)]


def test_queries_are_those_of_the_attention(model):
    """Against the queries that diffusers' plain attention computes its scores from."""
    asked = []
    layers = [layer for name, layer in model.unet.named_modules() if isinstance(layer, Attention) and "attn2" in name]
    before = model.unet.attn_processors
    model.unet.set_attn_processor(AttnProcessor())
    for layer in layers:
        layer.get_attention_scores = keeping(layer, asked)
    latents, embeddings = inputs(model)
    with torch.inference_mode():
        model.unet(latents, 100, embeddings)
    for layer in layers:
        del layer.get_attention_scores
    model.unet.set_attn_processor(before)
    found = record(model, chosen(model, ["queries"], [8, 16, 32, 64]))
    assert len(found) == len(asked)
    for feature, query in zip(found, asked, strict=True):
        torch.testing.assert_close(feature, query, atol=1e-4, rtol=1e-4)


def keeping(layer, asked):
    def scores(query, key, attention_mask=None):
        side = round(query.shape[1] ** 0.5)
        by_head = query.unflatten(0, (2, layer.heads))
        asked.append(by_head.permute(0, 1, 3, 2).flatten(1, 2).unflatten(-1, (side, side)))
        return Attention.get_attention_scores(layer, query, key, attention_mask)

    return scores


@pytest.mark.parametrize("kind", ["resblock", "attention"])
def test_block_outputs_are_inputs_of_the_next_layer(kind):
    """In a block of Stable Diffusion, residual and attention blocks take turns, each fed by the one before."""
    model = loaded("tiny")
    name = {"resblock": "down_blocks.1.resnets.1", "attention": "down_blocks.1.attentions.1"}[kind]
    following = {"resblock": "down_blocks.1.attentions.1", "attention": "down_blocks.1.downsamplers.0"}[kind]
    got = []
    handle = model.unet.get_submodule(following).register_forward_pre_hook(lambda _, inputs: got.append(inputs[0]))
    latents, embeddings = inputs(model)
    with torch.inference_mode():
        model.unet(latents, 100, embeddings)
    handle.remove()
    layer = next(layer for layer in feature_layers(model.unet, 8) if layer.name == name)
    assert (layer.kind, layer.stride) == (kind, 16)
    (found,) = record(model, [layer])
    assert torch.equal(found, got[0])


@pytest.mark.slow
def test_sides_follow_from_the_strides(model):
    for layer in feature_layers(model.unet, model.vae_stride):
        (found,) = record(model, [layer])
        assert found.shape[0] == 2
        assert found.shape[2:] == (model.image_size // layer.stride,) * 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_forward_pass_stops_after_the_last_needed_layer(kind):
    model = loaded("tiny")
    begun = set()
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: begun.add(name))
        for name, module in model.unet.named_modules()
    ]
    features = record(model, chosen(model, [kind], [32]))
    for handle in handles:
        handle.remove()
    assert len(features) == 5
    last = {
        "queries": "up_blocks.1.attentions.2.transformer_blocks.0.attn2.to_q",
        "resblock": "up_blocks.1.resnets.2",
        "attention": "up_blocks.1.attentions.2",
    }[kind]
    behind = {
        "queries": "up_blocks.1.attentions.2.transformer_blocks.0.attn2.to_k",
        "resblock": "up_blocks.1.attentions.2",
        "attention": "up_blocks.1.upsamplers",
    }[kind]
    assert last in begun
    assert not [name for name in begun if name.startswith((behind, "up_blocks.2"))]


def test_hooks_are_removed(model):
    latents, embeddings = inputs(model)
    with torch.inference_mode():
        expected = model.unet(latents, 100, embeddings).sample
        features = record(model, chosen(model, KINDS, [32]))
        assert torch.equal(model.unet(latents, 100, embeddings).sample, expected)
    assert len(features) == len(chosen(model, KINDS, [32]))


def test_other_errors_propagate():
    model = loaded("tiny")
    latents, embeddings = torch.zeros(1, *model.latent_shape), torch.zeros(1, 77, 5)
    with pytest.raises(RuntimeError, match=r"size|shape"):
        read_features(model, latents, 1, embeddings, chosen(model, KINDS, [8]))
    assert not any(module._forward_hooks for module in model.unet.modules())
