from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

from pseudolabel.errors import ModelError
from pseudolabel.io import pretrained
from pseudolabel.text import clip
from pseudolabel.text.clip import ClipScorer
from tests.plain.clip import tiny_clip

CPU = torch.device("cpu")
TEXTS = ["A photo of a star", "A photo of a big blue heart", "cross"]
WORDS = ["star", "red heart", "photograph", "unheard"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def scorer(folder: Path) -> ClipScorer:
    return ClipScorer(str(folder), CPU, "`filter.clip`")


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 255, (40, 50, 3), np.uint8)) for _ in range(4)]


def test_cosines_are_the_models_own(folder: Path, scorer: ClipScorer, images: list[Image.Image]) -> None:
    """One image and one sentence at a time, as published: the logits are the cosines times a scale."""
    model, processor = CLIPModel.from_pretrained(folder), CLIPProcessor.from_pretrained(folder)
    cosines = torch.empty(len(images), len(TEXTS))
    for i, image in enumerate(images):
        for j, text in enumerate(TEXTS):
            logits = model(**processor(text=[text], images=[image], return_tensors="pt")).logits_per_image
            cosines[i, j] = logits.item() / model.logit_scale.exp().item()
    found = scorer.similarities(images, TEXTS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, cosines)
    assert found.std() > 0.01


def test_embeddings_have_length_one(scorer: ClipScorer, images: list[Image.Image]) -> None:
    for embeddings in (scorer.image_embeddings(images), scorer.text_embeddings(TEXTS)):
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(len(embeddings)))


def test_a_sentence_is_encoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip, "TEXT_BATCH", 2)
    scorer = ClipScorer(str(folder), CPU, "`filter.clip`")
    passes: list[int] = []
    scorer.model.text_model.register_forward_pre_hook(
        lambda module, args, inputs: passes.append(len(inputs["input_ids"])), with_kwargs=True
    )
    first = scorer.text_embeddings([*TEXTS, TEXTS[0]])
    assert passes == [2, 1]
    assert torch.equal(scorer.text_embeddings([TEXTS[2], TEXTS[0]]), first[[2, 3]])
    assert passes == [2, 1]


def test_word_states_are_means_over_the_words_own_tokens(folder: Path, scorer: ClipScorer) -> None:
    model, tokenizer = CLIPModel.from_pretrained(folder), CLIPProcessor.from_pretrained(folder).tokenizer
    found = scorer.word_states(WORDS)
    assert found.shape == (len(WORDS), model.config.text_config.hidden_size)
    lengths = set()
    for word, state in zip(WORDS, found, strict=True):
        ids = tokenizer(word, return_tensors="pt").input_ids
        embeddings = model.text_model(ids).last_hidden_state[0]
        lengths.add(len(embeddings))
        torch.testing.assert_close(state, embeddings[1:-1].mean(0))
    assert len(lengths) > 1


def test_long_sentences_are_cut(scorer: ClipScorer) -> None:
    longest = " ".join(["star"] * 75)
    assert torch.equal(scorer.text_embeddings([longest + " heart"]), scorer.text_embeddings([longest]))


def test_half_precision(
    folder: Path, scorer: ClipScorer, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: images arrive in the model's precision, cosines leave in float32."""
    monkeypatch.setattr(pretrained, "resolve_dtype", lambda name, device: torch.bfloat16)
    half = ClipScorer(str(folder), CPU, "`filter.clip`")
    assert half.model.dtype == torch.bfloat16
    cosines = half.similarities(images, TEXTS)
    assert cosines.dtype == half.word_states(WORDS).dtype == torch.float32
    torch.testing.assert_close(cosines, scorer.similarities(images, TEXTS), atol=0.1, rtol=0)


def test_nothing_to_score(scorer: ClipScorer, images: list[Image.Image]) -> None:
    assert scorer.similarities(images, []).shape == (4, 0)
    assert scorer.similarities([], TEXTS).shape == (0, 3)
    assert scorer.word_states([]).shape == (0, 32)


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"`freesegdiff\.clip`.*a folder with a CLIP.*safetensors"):
        ClipScorer(str(tmp_path), CPU, "`freesegdiff.clip`")


@pytest.mark.parametrize("name", ["model.safetensors", "processor_config.json", "tokenizer.json"])
def test_a_checkpoint_with_a_part_missing(tmp_path: Path, name: str) -> None:
    folder = tiny_clip(tmp_path / "clip")
    (folder / name).unlink()
    with pytest.raises(ModelError, match=r"`filter\.clip`"):
        ClipScorer(str(folder), CPU, "`filter.clip`")


def test_a_damaged_file(tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path / "clip")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"cannot load .*`filter\.clip`"):
        ClipScorer(str(folder), CPU, "`filter.clip`")
