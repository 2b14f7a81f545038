import pytest
import torch

from pseudolabel.config import DiffSegmenterConfig
from pseudolabel.errors import SampleError
from pseudolabel.text.prompts import build_prompt, token_weights
from tests.plain import diffsegmenter as plain
from tests.plain.architectures import clip_tokenizer, shipped_tokenizer

TEMPLATE = "a photograph of {}"
TOKENIZER = shipped_tokenizer()


def weigh(prompt, **switches):
    return token_weights(TOKENIZER, prompt, DiffSegmenterConfig(**switches))


def cut(prompt, span):
    return prompt.text[span[0] : span[1]]


def read(weights):
    """The tokens that have a column weight, with it."""
    tokens = TOKENIZER.convert_ids_to_tokens(TOKENIZER(weights.text).input_ids)
    return [(tokens[i], weights.weights[i].item()) for i in weights.weights.nonzero().flatten()]


@pytest.mark.parametrize(
    ("template", "name", "caption", "text"),
    [
        (TEMPLATE, "dog", "", "a photograph of dog"),
        (TEMPLATE, "dog", "a photograph of dog sitting on grass", "a photograph of dog sitting on grass"),
        (TEMPLATE, "Dog", "A  photograph of dog\n on grass ", "a photograph of Dog on grass"),
        (TEMPLATE, "dog", "two dogs on grass", "a photograph of dog, two dogs on grass"),
        (TEMPLATE, "car", "a photograph of cartoon dogs", "a photograph of car, a photograph of cartoon dogs"),
        (TEMPLATE, "car", "a photograph of car, red", "a photograph of car, red"),
        ("one {} of many", "c++ (new)", "one C++ (new) of many.", "one c++ (new) of many."),
        ("{} alone", "dog", "grass", "dog alone, grass"),
    ],
)
def test_sentence_and_span_of_the_class(template, name, caption, text):
    prompt = build_prompt(template, name, caption)
    assert prompt.text == text
    assert cut(prompt, prompt.name) == name
    assert prompt.name[0] == template.index("{}")


@pytest.mark.parametrize(
    ("caption", "modifier"),
    [
        ("a photograph of dog sitting on grass", "sitting"),
        ("a photograph of dog sitting, on grass", "sitting"),
        ("a photograph of dog SITTING", None),
        ("a photograph of dog is sitting", None),
        ("a photograph of dog, sitting on grass", None),
        ("sitting on grass", None),
        ("a photograph of dog singings", None),
        ("", None),
    ],
)
def test_only_the_very_next_word_modifies(caption, modifier):
    prompt = build_prompt(TEMPLATE, "dog", caption)
    assert (cut(prompt, prompt.modifier) if prompt.modifier else None) == modifier


def test_a_known_word_is_one_token():
    weights = weigh(build_prompt(TEMPLATE, "circle"))
    assert read(weights) == [("circle</w>", 1.0)]
    assert weights.weights.nonzero().item() == 4  # start, a, photograph, of
    assert weights.weights.shape == weights.emphasis.shape == (77,)


def test_a_name_of_several_tokens_is_their_mean_or_its_last():
    prompt = build_prompt(TEMPLATE, "red star")
    quarter = pytest.approx(0.25)
    assert read(weigh(prompt)) == [("r", quarter), ("e", quarter), ("d</w>", quarter), ("star</w>", quarter)]
    assert read(weigh(prompt, class_tokens="last")) == [("star</w>", 1.0)]


def test_the_name_is_found_where_the_template_puts_it_and_not_where_it_occurs():
    weights = weigh(build_prompt("a star and a {} on a star", "star"))
    assert weights.weights.nonzero().flatten().tolist() == [5]


def test_a_name_at_the_very_start_does_not_take_the_start_token():
    assert weigh(build_prompt("{} alone", "star")).weights.nonzero().flatten().tolist() == [1]


def test_an_ing_word_takes_half():
    prompt = build_prompt(TEMPLATE, "red star", "a photograph of red star king here")
    letters = [(token, pytest.approx(0.125)) for token in ("k", "i", "n", "g</w>")]
    assert read(weigh(prompt, class_tokens="last")) == [("star</w>", 0.5), *letters]
    assert read(weigh(prompt, class_tokens="last", modifiers="none")) == [("star</w>", 1.0)]


@pytest.mark.parametrize(
    ("name", "word", "read_token"),
    [
        ("hydrant", ["hydr", "ant</w>"], "ant</w>"),
        ("fire hydrant", ["hydr", "ant</w>"], "ant</w>"),
        ("surfboard", ["surf", "board</w>"], "board</w>"),
        ("hairdryer", ["hair", "dryer</w>"], "dryer</w>"),
        ("bedclothes", ["bed", "clothes</w>"], "clothes</w>"),
        ("computer", ["compu", "ter</w>"], "ter</w>"),
        ("computer mouse", ["mouse</w>"], "mouse</w>"),
        ("dog", ["dog</w>"], "dog</w>"),
    ],
)
def test_the_last_word_is_emphasised_and_its_last_token_read(name, word, read_token):
    """With CLIP's own tokens, and a caption that goes on with the word again."""
    tokenizer = clip_tokenizer()
    prompt = build_prompt(TEMPLATE, name, f"a photograph of {name} beside a {name}")
    weights = token_weights(tokenizer, prompt, DiffSegmenterConfig(class_tokens="last_word"))
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(weights.text).input_ids)
    emphasised = (weights.emphasis == DiffSegmenterConfig().class_weight).nonzero().flatten().tolist()
    assert [tokens[place] for place in emphasised] == word
    assert emphasised == list(range(emphasised[0], emphasised[0] + len(word)))  # the first time, not the second
    assert weights.weights.nonzero().flatten().tolist() == emphasised[-1:]
    assert tokens[emphasised[-1]] == read_token
    assert (weights.emphasis == 1).sum() == 77 - len(word)


def test_clip_s_tokens_are_the_published_ones():
    assert clip_tokenizer()("a photograph of dog").input_ids == [49406, 320, 8853, 539, 1929, 49407]


@pytest.mark.parametrize(
    ("behind", "ours", "released"),
    [
        (" sitting on grass", ["sitting</w>"], ["sitting</w>"]),
        (", sitting on grass", [], [",</w>"]),
        (" sitting, on grass", ["sitting</w>"], []),
        (" sitting.", ["sitting</w>"], []),
        (" surfacing", ["sur", "facing</w>"], ["sur"]),
        (" in evening", [], []),
        ("", [], []),
    ],
)
def test_released_words_in_ing_are_told_by_blanks_and_read_by_place(behind, ours, released):
    tokenizer, prompt = clip_tokenizer(), build_prompt(TEMPLATE, "dog", f"a photograph of dog{behind}")
    for modifiers, expected in (("ing_next", ours), ("ing_released", released)):
        weights = token_weights(tokenizer, prompt, DiffSegmenterConfig(modifiers=modifiers)).weights
        tokens = tokenizer.convert_ids_to_tokens(tokenizer(prompt.text).input_ids)
        read = [tokens[place] for place in weights.nonzero().flatten().tolist()]
        assert read == ["dog</w>", *expected]
        assert weights[4] == (0.5 if expected else 1)


@pytest.mark.parametrize("tokenizer", [TOKENIZER, clip_tokenizer()], ids=["shapes", "CLIP"])
@pytest.mark.parametrize("class_tokens", ["mean", "last", "last_word"])
@pytest.mark.parametrize("modifiers", ["ing_next", "ing_released", "none"])
def test_weights_are_those_of_the_plain_way(tokenizer, class_tokens, modifiers):
    config = DiffSegmenterConfig(class_tokens=class_tokens, modifiers=modifiers, class_weight=1.5)
    for name in ("star", "red star", "zebra crossing", "fire hydrant"):
        for behind in (None, "", " sitting", ", here", ", sitting", " sitting, here", "y sitting"):
            caption = "" if behind is None else f"a photograph of {name}{behind}"
            found = token_weights(tokenizer, build_prompt(TEMPLATE, name, caption), config)
            sentence = plain.write_sentence(TEMPLATE, name, caption)
            weights, emphasis = torch.zeros(77), torch.ones(77)
            groups = plain.class_tokens(tokenizer, sentence, config)
            for group in groups:
                weights[group] += 1 / len(group) / len(groups)
            emphasis[plain.emphasised_tokens(tokenizer, sentence, config)] = 1.5
            assert found.text == sentence.text
            torch.testing.assert_close(found.weights, weights)
            assert torch.equal(found.emphasis, emphasis)
            assert found.weights.sum().item() == pytest.approx(1)


def test_a_name_behind_the_last_token_is_an_error():
    with pytest.raises(SampleError, match="77 tokens"):
        weigh(build_prompt("circle " * 80 + "{}", "star"))


def test_a_caption_behind_the_last_token_is_cut():
    weights = weigh(build_prompt(TEMPLATE, "star", "circle " * 100))
    assert read_sum(weights) == 1


def read_sum(weights):
    return weights.weights.sum().item()
