import pytest
import torch

from pseudolabel.text.encoder import BATCH, TextEncodings
from tests.plain.architectures import loaded


@pytest.mark.parametrize("name", ["tiny", "tiny_v2", "shapes", "tiny_xl"])
def test_emphasis_is_compel_s_formula(name):
    model = loaded(name)
    text = "a photograph of red star"
    emphasis = torch.ones(77)
    emphasis[4:8] = 1.21
    empty, embeddings = model.encode_text(["", text])
    found = TextEncodings(model, [text]).emphasised(text, emphasis)
    torch.testing.assert_close(found[:4], embeddings[:4])
    torch.testing.assert_close(found[8:], embeddings[8:])
    torch.testing.assert_close(found[4:8], empty[4:8] + 1.21 * (embeddings[4:8] - empty[4:8]))
    assert (found[4:8] - embeddings[4:8]).abs().max() > 0.01


def test_zero_is_the_empty_sentence():
    model = loaded("tiny")
    found = TextEncodings(model, ["star"]).emphasised("star", torch.zeros(77))
    torch.testing.assert_close(found, model.encode_text([""])[0])


def test_every_sentence_is_encoded_once():
    model = loaded("tiny")
    sentences = [f"a photograph of {number}" for number in range(BATCH + 5)]
    rows = []
    handle = model.text_encoder.register_forward_hook(lambda _, inputs, output: rows.append(len(output[0])))
    encodings = TextEncodings(model, sentences * 3)
    handle.remove()
    assert rows == [1, BATCH, 5]
    for sentence in (sentences[0], sentences[-1]):
        torch.testing.assert_close(
            encodings.emphasised(sentence, torch.ones(77)), model.encode_text([sentence])[0], atol=1e-5, rtol=1e-4
        )
