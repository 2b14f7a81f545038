import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from pseudolabel.config import ModelConfig
from pseudolabel.diffusion import load as loading
from pseudolabel.diffusion.load import fingerprint, load_model
from pseudolabel.errors import ModelError, SettingError, UserError
from pseudolabel.runtime import precision
from pseudolabel.runtime.precision import gains_from_bfloat16, resolve_dtype
from tests.plain.architectures import loaded, tiny

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
PARTS = ["unet", "vae", "text_encoder"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("checkpoint"))


def load(folder, **settings):
    return load_model(ModelConfig(name=str(folder), **settings), CPU)


def test_the_model_is_frozen_and_has_no_decoder(checkpoint):
    model = load(checkpoint)
    for part in (model.unet, model.vae, model.text_encoder):
        assert not part.training
        assert not [name for name, weight in part.named_parameters() if weight.requires_grad]
    assert not [name for name, _ in model.vae.named_parameters() if name.startswith(("decoder", "post_quant_conv"))]
    assert model.image_size == 128
    assert model.vae_stride == 8
    assert model.latent_shape == (4, 16, 16)


def test_weights_equal_the_files(checkpoint):
    model = load(checkpoint)
    weights = load_file(checkpoint / "unet" / "diffusion_pytorch_model.safetensors")
    for name, weight in model.unet.named_parameters():
        assert torch.equal(weight, weights[name])


@pytest.mark.parametrize("part", PARTS)
def test_pickled_weights_are_refused(checkpoint, tmp_path, part):
    folder = shutil.copytree(checkpoint, tmp_path / "copy")
    stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
    pickled = "pytorch_model.bin" if part == "text_encoder" else f"{stem}.bin"
    torch.save(load_file(folder / part / f"{stem}.safetensors"), folder / part / pickled)
    (folder / part / f"{stem}.safetensors").unlink()
    with pytest.raises(ModelError, match=r"\.safetensors files"):
        load(folder)


@pytest.mark.parametrize("halves", [PARTS, ["unet"]], ids=["all parts", "one part"])
def test_half_precision_files_are_found_where_there_are_no_others(checkpoint, copy, halves):
    """Beside another variant, which must be named, and in some parts alone."""
    for part in halves:
        stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
        plain = copy / part / f"{stem}.safetensors"
        plain.rename(plain.with_name(f"{stem}.fp16.safetensors"))
        other = {name: weight + 1 for name, weight in load_file(checkpoint / part / f"{stem}.safetensors").items()}
        save_file(other, plain.with_name(f"{stem}.non_ema.safetensors"), {"format": "pt"})
    expected, found = load(checkpoint), load(copy)
    for part in PARTS:
        ours, theirs = getattr(found, part).state_dict(), getattr(expected, part).state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert fingerprint_of(copy) == fingerprint_of(checkpoint)
    if halves == PARTS:
        assert not torch.equal(load(copy, variant="non_ema").unet.conv_in.weight, expected.unet.conv_in.weight)
        assert fingerprint_of(copy, variant="non_ema") != fingerprint_of(checkpoint)


@pytest.mark.parametrize("part", [*PARTS, "tokenizer", "scheduler"])
def test_a_missing_part_is_named(checkpoint, tmp_path, part):
    folder = shutil.copytree(checkpoint, tmp_path / "copy")
    shutil.rmtree(folder / part)
    with pytest.raises(ModelError, match=f"{folder}.*{part}"):
        load(folder)


def test_mismatched_parts_are_refused(tmp_path):
    """An inpainting U-Net takes the mask as well; that of another family takes other text embeddings."""
    with pytest.raises(ModelError, match="channels and the VAE's differ, 9 and 4"):
        load(tiny(tmp_path / "inpainting", in_channels=9))
    with pytest.raises(ModelError, match="text width and the text encoder's differ, 32 and 24"):
        load(tiny(tmp_path / "other", cross_attention_dim=32))


@pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model", "text_encoder/model"])
def test_a_damaged_file_is_reported(checkpoint, tmp_path, name):
    folder = shutil.copytree(checkpoint, tmp_path / "copy")
    path = folder / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot load"):
        load(folder)


def test_a_wrong_name_gets_a_hint():
    with pytest.raises(UserError, match="no such folder here") as caught:
        load("/no/such/folder")
    for expected in ("/no/such/folder", "`model.name`", "Check the name, the network", "a downloaded checkpoint"):
        assert expected in str(caught.value)


@pytest.mark.parametrize(("name", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_dtype_of_every_part(checkpoint, name, dtype):
    model = load(checkpoint, dtype=name)
    assert model.dtype == dtype
    for part in (model.unet, model.vae, model.text_encoder):
        assert {weight.dtype for weight in part.parameters()} == {dtype}


def test_resolves_dtypes():
    assert resolve_dtype("auto", CPU) == torch.float32
    assert resolve_dtype("float16", CPU) == torch.float16
    assert resolve_dtype("bfloat16", torch.device("cuda")) == torch.bfloat16
    assert resolve_dtype("float32", torch.device("cuda")) == torch.float32


def test_processors_that_are_faster_in_bfloat16_use_it(checkpoint, monkeypatch):
    plain = load(checkpoint)
    assert plain.dtype == torch.float32  # too small to gain
    found = plain.unet.num_parameters()
    monkeypatch.setattr(loading, "gains_from_bfloat16", lambda parameters: parameters == found)
    model = load(checkpoint)
    assert {part.dtype for part in (model.unet, model.vae, model.text_encoder)} == {torch.bfloat16}
    assert load(checkpoint, dtype="float32").dtype == torch.float32


def test_gains_are_those_of_a_trial(monkeypatch):
    many = 860_000_000
    found = {torch.float32: 0.1, torch.bfloat16: 0.06}
    monkeypatch.setattr(precision, "_seconds", lambda dtype: found[dtype])
    monkeypatch.setattr(precision, "_is_faster", precision._is_faster.__wrapped__)  # not cached
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert gains_from_bfloat16(many)
    assert not gains_from_bfloat16(4_000_000)
    found[torch.bfloat16] = 0.09
    assert not gains_from_bfloat16(many)
    found[torch.bfloat16] = 0.06
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert not gains_from_bfloat16(many)


def test_auto_is_the_launcher_s_mixed_precision(monkeypatch):
    for word, dtype in {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}.items():
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", word)
        assert resolve_dtype("auto", CPU) == dtype
        assert resolve_dtype("float32", CPU) == torch.float32
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    with pytest.raises(SettingError, match=r"--mixed_precision fp8: frozen models run in no, bf16 or fp16"):
        resolve_dtype("auto", CPU)


def test_image_size(checkpoint):
    model = load(checkpoint, image_size=192)
    assert model.latent_shape == (4, 24, 24)
    with pytest.raises(ModelError, match="image_size` 100 is not a multiple of 64"):
        load(checkpoint, image_size=100)


def fingerprint_of(folder, **options):
    return fingerprint(ModelConfig(name=str(folder), **options))


@pytest.fixture
def copy(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "copy")


def change(path, name, number):
    """Add one to a single value of a file of weights."""
    weights = load_file(path)
    weights[name].view(-1)[number] += 1
    save_file(weights, path)


def test_the_fingerprint_depends_on_file_contents(checkpoint, copy):
    assert fingerprint_of(copy) == fingerprint_of(checkpoint)
    assert fingerprint_of(copy, dtype="bfloat16", compile=True, revision="other") == fingerprint_of(checkpoint)
    change(copy / "vae" / "diffusion_pytorch_model.safetensors", "decoder.conv_in.bias", 0)  # labelling only encodes
    assert fingerprint_of(copy) == fingerprint_of(checkpoint)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("unet/diffusion_pytorch_model", "conv_in.weight"),
        ("vae/diffusion_pytorch_model", "encoder.conv_in.weight"),
        ("text_encoder/model", "embeddings.token_embedding.weight"),
    ],
)
def test_the_fingerprint_depends_on_every_weight(checkpoint, copy, file, name):
    change(copy / f"{file}.safetensors", name, -1)
    assert fingerprint_of(copy) != fingerprint_of(checkpoint)


@pytest.mark.parametrize("change", [{"beta_end": 0.05}, {"rescale_betas_zero_snr": True}], ids=str)
def test_the_fingerprint_depends_on_the_noise_schedule(checkpoint, copy, change):
    path = copy / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert not torch.equal(load(copy).alphas_cumprod, load(checkpoint).alphas_cumprod)
    assert fingerprint_of(copy) != fingerprint_of(checkpoint)


def test_the_schedule_is_the_checkpoint_s(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "copy")
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"beta_end": 0.05}))
    other = load(folder).alphas_cumprod
    assert load(checkpoint).alphas_cumprod[[1, 50, 100, 150]].numpy() == pytest.approx(
        [0.99830, 0.95158, 0.89422, 0.82781], abs=5e-6
    )
    assert other[150] < 0.8


def test_the_prediction_type_is_the_scheduler_s(checkpoint, tmp_path):
    assert load(checkpoint).prediction == "epsilon"
    assert loaded("tiny_v2").prediction == "v_prediction"
    folder = shutil.copytree(checkpoint, tmp_path / "copy")
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "sample"}))
    with pytest.raises(ModelError, match="predicts 'sample', not epsilon or v_prediction"):
        load(folder)
