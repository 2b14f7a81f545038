import pytest
import torch
from diffusers.models.attention_processor import Attention

from pseudolabel.diffusion.layers import at_strides, attention_layers
from pseudolabel.diffusion.recording import by_stride, head_shares, read_attention
from tests.plain.architectures import loaded
from tests.plain.diffsegmenter import attend


@pytest.fixture(params=["tiny", "tiny_v2", "shapes"])
def model(request):
    return loaded(request.param)


def inputs(model):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, *model.latent_shape, generator=generator)
    embeddings = torch.randn(2, 77, model.unet.config.cross_attention_dim, generator=generator)
    return latents, embeddings, torch.rand(2, 77, generator=generator)


def at(model, cross_strides, self_strides):
    layers = attention_layers(model.unet, model.vae_stride)
    return [*at_strides(layers, "self", self_strides), *at_strides(layers, "cross", cross_strides)]


def record(model, cross_strides, self_strides, timestep=100):
    latents, embeddings, weights = inputs(model)
    return read_attention(model, latents, timestep, embeddings, at(model, cross_strides, self_strides), weights)


@torch.inference_mode()
def test_records_equal_full_matrices(model):
    recording = record(model, [8, 16, 32, 64], [8, 16, 32, 64])
    latents, embeddings, weights = inputs(model)
    for row in range(2):
        matrices = attend(model, latents[row], 100, embeddings[row : row + 1])
        for stride in (8, 16, 32, 64):
            cross = [m.probabilities.mean(0) for m in matrices if m.is_cross and m.stride == stride]
            found = [maps[row] for maps in by_stride(recording.cross)[stride]]
            torch.testing.assert_close(found, [matrix @ weights[row] for matrix in cross], atol=1e-5, rtol=1e-4)
            own = [m.probabilities for m in matrices if not m.is_cross and m.stride == stride]
            found = [
                (query[row] @ key[row].transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
                for query, key in by_stride(recording.queries_keys)[stride]
            ]
            torch.testing.assert_close(found, own, atol=1e-5, rtol=1e-3)


@torch.inference_mode()
def test_several_maps_of_a_latent_equal_single_ones(model):
    latents, embeddings, weights = inputs(model)
    both = torch.stack([weights, weights.flip(1)], 1)
    recording = read_attention(model, latents, 100, embeddings, at(model, [8, 64], []), both)
    single = record(model, [8, 64], [])
    assert recording.cross.keys() == single.cross.keys()
    for layer, maps in recording.cross.items():
        assert maps.shape == (2, 2, (model.image_size // layer.stride) ** 2)
        torch.testing.assert_close(maps[:, 0], single.cross[layer])
        assert (maps[:, 0] - maps[:, 1]).abs().max() > 1e-3


@torch.inference_mode()
def test_each_head_has_a_map(model):
    latents, embeddings, weights = inputs(model)
    layers = at(model, [8, 64], [16])
    recording = read_attention(model, latents, 100, embeddings, layers, weights, heads_by="each")
    for row in range(2):
        matrices = attend(model, latents[row], 100, embeddings[row : row + 1])
        for stride, level in by_stride(recording.cross).items():
            plain = [m.probabilities @ weights[row] for m in matrices if m.is_cross and m.stride == stride]
            torch.testing.assert_close([maps[row] for maps in level], plain, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_chosen_heads_are_averaged(model):
    latents, embeddings, weights = inputs(model)
    layers = at(model, [16, 32], [])
    each = read_attention(model, latents, 100, embeddings, layers, weights, heads_by="each")
    chosen = read_attention(model, latents, 100, embeddings, layers, weights, heads=torch.tensor([1]))
    for layer, maps in chosen.cross.items():
        torch.testing.assert_close(maps, each.cross[layer][:, 1])


@torch.inference_mode()
def test_shares_of_heads():
    """Their sum is 1, equal heads share alike, the output's bias does not count, and neither does a head of zeros."""
    layer = Attention(8, cross_attention_dim=5, heads=2, dim_head=4).eval()
    probabilities, value = torch.rand(1, 2, 9, 7).softmax(-1), torch.randn(1, 2, 7, 4)
    shares = head_shares(layer, probabilities, value)
    torch.testing.assert_close(shares.sum(1), torch.ones(1, 9))
    layer.to_out[0].bias.fill_(3.0)
    assert torch.equal(head_shares(layer, probabilities, value), shares)
    assert torch.equal(head_shares(layer, probabilities, 0 * value), torch.full((1, 2, 9), 0.5))
    value[:, 1] = 0
    torch.testing.assert_close(head_shares(layer, probabilities, value)[:, 0], torch.ones(1, 9))
    layer.to_out[0].weight[:, 4:] = layer.to_out[0].weight[:, :4]
    alike = head_shares(layer, probabilities[:, :1].expand(-1, 2, -1, -1), value[:, :1].expand(-1, 2, -1, -1))
    torch.testing.assert_close(alike, torch.full((1, 2, 9), 0.5))


def test_only_requested_layers_are_kept(model):
    recording = record(model, [32], [16])
    layers = attention_layers(model.unet, model.vae_stride)
    count = sum(layer.kind == "cross" and layer.stride == 32 for layer in layers)
    assert {stride: len(level) for stride, level in by_stride(recording.cross).items()} == {32: count}
    assert by_stride(recording.queries_keys).keys() == {16}


def test_one_timestep_applies_to_all(model):
    one, other = (record(model, [8], [16], timestep) for timestep in (100, torch.tensor([100, 100])))
    assert one.cross.keys() == other.cross.keys()
    assert all(map(torch.equal, one.cross.values(), other.cross.values()))
    for layer, pair in one.queries_keys.items():
        assert all(map(torch.equal, pair, other.queries_keys[layer]))


MIDDLE = "mid_block.attentions.0.transformer_blocks.0"


@pytest.mark.parametrize(
    ("cross", "own", "reached", "not_reached"),
    [
        ([64], [], f"{MIDDLE}.attn2", "mid_block.resnets.1"),
        ([], [64], f"{MIDDLE}.attn1", f"{MIDDLE}.attn2"),
        ([32], [], "up_blocks.1", "up_blocks.2"),
        ([8, 64], [8], "up_blocks.3", "conv_norm_out"),
    ],
)
def test_the_forward_pass_stops_after_the_last_needed_layer(cross, own, reached, not_reached):
    model = loaded("tiny")
    begun = set()
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: begun.add(name))
        for name, module in model.unet.named_modules()
    ]
    record(model, cross, own)
    for handle in handles:
        handle.remove()
    assert reached in begun
    assert not [name for name in begun if name == not_reached or name.startswith(f"{not_reached}.")]


def test_processors_are_restored(model):
    before = dict(model.unet.attn_processors)
    latents, embeddings, weights = inputs(model)
    record(model, [8, 64], [8])
    assert model.unet.attn_processors == before
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        read_attention(model, latents, 100, embeddings[..., :-1], at(model, [8], [8]), weights)
    assert model.unet.attn_processors == before
