"""Another VAE than the checkpoint's own, and a tiny one."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, VQModel

import pseudolabel as pl
from pseudolabel.config import ModelConfig
from pseudolabel.diffusion.load import fingerprint, load_model
from pseudolabel.errors import ModelError, SettingError
from tests.plain.architectures import tiny

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return tiny(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def small_vae(tmp_path_factory) -> tuple[Path, AutoencoderTiny]:
    torch.manual_seed(1)
    vae = AutoencoderTiny(encoder_block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8)).eval()
    folder = tmp_path_factory.mktemp("taesd")
    vae.save_pretrained(folder)
    return folder, vae


def load(folder: Path, **settings):
    return load_model(ModelConfig(name=str(folder), **settings), CPU)


def test_a_tiny_vae_encodes(checkpoint, small_vae) -> None:
    folder, vae = small_vae
    model = load(checkpoint, vae=str(folder))
    pixels = torch.rand(2, 3, 128, 128) * 2 - 1
    with torch.inference_mode():
        expected = vae.encode(pixels).latents
    assert torch.equal(model.encode(pixels), expected)
    assert (model.image_size, model.vae_stride) == (128, 8)
    assert not [name for name, _ in model.vae.named_parameters() if name.startswith("decoder")]
    with pytest.raises(SettingError, match=r"`model\.vae`: a tiny VAE has no posterior"):
        model.encode(pixels, torch.zeros(2, *model.latent_shape))


def test_another_vae_of_the_same_class(checkpoint, tmp_path) -> None:
    other = tiny(tmp_path / "other")
    own = AutoencoderKL.from_pretrained(other / "vae")
    with torch.no_grad():
        own.encoder.conv_in.bias += 1
    own.save_pretrained(tmp_path / "vae")
    pixels = torch.zeros(1, 3, 128, 128)
    model = pl.load_model(str(checkpoint), device="cpu", vae=tmp_path / "vae")
    with torch.inference_mode():
        expected = own.encode(pixels).latent_dist.mean * own.config.scaling_factor
    torch.testing.assert_close(model.encode(pixels), expected)


def test_a_run_knows_its_vae(checkpoint, small_vae) -> None:
    plain, changed = (fingerprint(ModelConfig(name=str(checkpoint), vae=vae)) for vae in ("", str(small_vae[0])))
    assert plain != changed


def test_what_is_no_vae_is_refused(checkpoint, tmp_path) -> None:
    VQModel(block_out_channels=(8,), norm_num_groups=4).save_pretrained(tmp_path / "vq")
    with pytest.raises(ModelError, match=r"\(`model.vae`\): it is a VQModel, not AutoencoderKL or AutoencoderTiny"):
        load(checkpoint, vae=str(tmp_path / "vq"))
    with pytest.raises(ModelError, match=r"cannot load the VAE .* \(`model.vae`\): give a folder or hub id"):
        load(checkpoint, vae=str(checkpoint))
    with pytest.raises(ModelError, match=r"the VAE 'no/vae' \(`model.vae`\): no such folder here"):
        load(checkpoint, vae="no/vae")
