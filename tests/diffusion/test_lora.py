"""LoRA files: the weights that they give, in all names that they come in."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import pseudolabel as pl
from pseudolabel.config import ModelConfig
from pseudolabel.diffusion.load import fingerprint, load_model
from pseudolabel.errors import ModelError
from tests.plain.architectures import tiny, tiny_xl

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
RANK, ALPHA = 2, 1.0
QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
OUT = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"
CONVOLUTION = "down_blocks.0.resnets.0.conv1"
TEXT = "encoder.layers.1.mlp.fc1"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return tiny(tmp_path_factory.mktemp("checkpoint"))


def load(folder: Path, **settings):
    return load_model(ModelConfig(name=str(folder), **settings), CPU)


def factors(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A and B for a layer's weight; those of a convolution are a convolution and one of 1 x 1."""
    generator = torch.Generator().manual_seed(weight.numel())
    down = torch.randn(RANK, *weight.shape[1:], generator=generator)
    up = torch.randn(weight.shape[0], RANK, *[1] * (weight.ndim - 2), generator=generator)
    return down, up


def kohya(part: str, layer: str, down, up) -> dict[str, torch.Tensor]:
    prefix = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}[part] + layer.replace(".", "_")
    tensors = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(ALPHA)}
    return {f"{prefix}.{end}": tensor for end, tensor in tensors.items()}


def peft(part: str, layer: str, down, up) -> dict[str, torch.Tensor]:
    layer = f"text_model.{layer}" if part == "text_encoder" else layer
    return {f"{part}.{layer}.lora_A.weight": down, f"{part}.{layer}.lora_B.weight": up}


def diffusers(part: str, layer: str, down, up) -> dict[str, torch.Tensor]:
    """The names that diffusers had first: attention's layers belong to a processor."""
    place, _, last = layer.removesuffix(".0").rpartition(".")
    if last.startswith("to_"):
        return {f"{part}.{place}.processor.{last}_lora.{end}.weight": own for end, own in (("down", down), ("up", up))}
    return {f"{part}.{layer}.lora.{end}.weight": own for end, own in (("down", down), ("up", up))}


@pytest.mark.parametrize(("names", "factor"), [(kohya, ALPHA / RANK), (peft, 1.0), (diffusers, 1.0)])
def test_changes_are_added_to_the_weights(checkpoint, tmp_path, names, factor) -> None:
    plain = load(checkpoint)
    tensors, expected = {}, {}
    for part, layer in (("unet", QUERY), ("unet", OUT), ("unet", CONVOLUTION), ("text_encoder", TEXT)):
        weight = getattr(plain, part).get_parameter(f"{layer}.weight")
        down, up = factors(weight)
        tensors |= names(part, layer, down, up)
        change = torch.einsum("or,r...->o...", up.flatten(1), down)
        expected[part, layer] = weight + 0.5 * factor * change
    path = tmp_path / "lora.safetensors"
    save_file(tensors, path)
    changed = load(checkpoint, lora=str(path), lora_scale=0.5)
    for part in ("unet", "text_encoder"):
        for name, weight in getattr(plain, part).named_parameters():
            own = getattr(changed, part).get_parameter(name)
            layer = name.removesuffix(".weight")
            if (part, layer) in expected and name.endswith("weight"):
                torch.testing.assert_close(own, expected[part, layer], atol=1e-5, rtol=1e-5)
                assert not torch.equal(own, weight)
            else:
                assert torch.equal(own, weight), name


def test_sdxl_s_names_of_the_first_release(tmp_path) -> None:
    """As kohya's scripts write them: blocks are numbered through, and there are two text encoders."""
    folder = tiny_xl(tmp_path / "xl")
    plain = load(folder)
    wanted = {
        "lora_unet_input_blocks_4_1_proj_in": ("unet", "down_blocks.1.attentions.0.proj_in"),
        "lora_unet_middle_block_1_transformer_blocks_1_attn1_to_v": (
            "unet",
            "mid_block.attentions.0.transformer_blocks.1.attn1.to_v",
        ),
        "lora_unet_output_blocks_5_1_transformer_blocks_0_attn2_to_k": (
            "unet",
            "up_blocks.1.attentions.2.transformer_blocks.0.attn2.to_k",
        ),
        "lora_te1_text_model_encoder_layers_0_mlp_fc2": ("text_encoder", "encoder.layers.0.mlp.fc2"),
        "lora_te2_text_model_encoder_layers_2_mlp_fc2": ("text_encoder_2", "text_model.encoder.layers.2.mlp.fc2"),
    }
    tensors = {}
    for name, (part, layer) in wanted.items():
        down, up = factors(getattr(plain, part).get_parameter(f"{layer}.weight"))
        tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
    path = tmp_path / "lora.safetensors"
    save_file(tensors, path)
    changed = load(folder, lora=str(path))
    for name, (part, layer) in wanted.items():
        change = tensors[f"{name}.lora_up.weight"] @ tensors[f"{name}.lora_down.weight"]
        weights = [getattr(model, part).get_parameter(f"{layer}.weight") for model in (changed, plain)]
        torch.testing.assert_close(weights[0] - weights[1], change, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"unet.nowhere.lora_A.weight": (2, 3)}, "'unet.nowhere.lora_A.weight' changes no layer of this checkpoint"),
        ({f"unet.{QUERY}.lora_A.weight": (2, 3), f"unet.{QUERY}.lora_B.weight": (16, 2)}, "does not fit .* 16 x 3"),
        ({f"unet.{QUERY}.lora_A.weight": (2, 16)}, "lacks one of its two factors"),
        ({"lora_unet_x.hada_w1_a": (2, 3)}, "is no factor of a LoRA"),
        ({}, "there are no tensors"),
    ],
    ids=["another model", "another size", "one factor", "LoHa", "empty"],
)
def test_what_does_not_fit_is_named(checkpoint, tmp_path, tensors, message) -> None:
    path = tmp_path / "lora.safetensors"
    save_file({name: torch.ones(shape) for name, shape in tensors.items()}, path)
    with pytest.raises(ModelError, match=message) as caught:
        load(checkpoint, lora=str(path))
    assert f"`model.lora` '{path}'" in str(caught.value)


def test_files_that_are_no_lora_are_refused(checkpoint, tmp_path) -> None:
    with pytest.raises(ModelError, match=r"`model.lora` 'lora.pt': give a \.safetensors file"):
        load(checkpoint, lora="lora.pt")
    with pytest.raises(ModelError, match=r"the file cannot be read: .*No such file"):
        load(checkpoint, lora=str(tmp_path / "none.safetensors"))


def test_a_run_knows_its_lora(checkpoint, tmp_path) -> None:
    path = tmp_path / "lora.safetensors"
    save_file(peft("unet", QUERY, torch.ones(2, 16), torch.ones(16, 2)), path)
    config = ModelConfig(name=str(checkpoint))
    digests = [
        fingerprint(ModelConfig(name=str(checkpoint), lora=str(path), lora_scale=scale)) for scale in (1.0, 0.5, 1.0)
    ]
    assert digests[0] == digests[2]
    assert len({fingerprint(config), *digests}) == 3


def test_python_loads_it(checkpoint, tmp_path) -> None:
    path = tmp_path / "lora.safetensors"
    save_file(peft("unet", QUERY, torch.ones(2, 16), torch.ones(16, 2)), path)
    weights = [
        model.unet.get_parameter(f"{QUERY}.weight")
        for model in (pl.load_model(str(checkpoint), device="cpu", lora=path, lora_scale=3), load(checkpoint))
    ]
    torch.testing.assert_close(weights[0] - weights[1], torch.full((16, 16), 6.0))
