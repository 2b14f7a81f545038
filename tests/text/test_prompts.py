import pytest
import torch

from pseudolabel.config import DiffSegmenterConfig
from pseudolabel.text.prompts import PromptError, build_prompt, token_weights
from tests.plain.architectures import shipped_tokenizer

TEMPLATE = "a photograph of {}"
TOKENIZER = shipped_tokenizer()


def weigh(prompt, **switches):
    return token_weights(TOKENIZER, prompt, DiffSegmenterConfig(**switches))


def cut(prompt, span):
    return prompt.text[span[0] : span[1]]


def read(weights):
    """The tokens that have a column weight, with it."""
    tokens = TOKENIZER.convert_ids_to_tokens(TOKENIZER(weights.text).input_ids)
    return [(tokens[i], weights.columns[i].item()) for i in weights.columns.nonzero().flatten()]


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
    assert weights.columns.nonzero().item() == 4  # start, a, photograph, of
    assert weights.columns.shape == weights.emphasis.shape == (77,)


def test_a_name_of_several_tokens_is_their_mean_or_its_last():
    prompt = build_prompt(TEMPLATE, "red star")
    quarter = pytest.approx(0.25)
    assert read(weigh(prompt)) == [("r", quarter), ("e", quarter), ("d</w>", quarter), ("star</w>", quarter)]
    assert read(weigh(prompt, class_tokens="last")) == [("star</w>", 1.0)]


def test_the_name_is_found_where_the_template_puts_it_and_not_where_it_occurs():
    weights = weigh(build_prompt("a star and a {} on a star", "star"))
    assert weights.columns.nonzero().flatten().tolist() == [5]


def test_a_name_at_the_very_start_does_not_take_the_start_token():
    assert weigh(build_prompt("{} alone", "star")).columns.nonzero().flatten().tolist() == [1]


def test_an_ing_word_takes_half():
    prompt = build_prompt(TEMPLATE, "red star", "a photograph of red star king here")
    letters = [(token, pytest.approx(0.125)) for token in ("k", "i", "n", "g</w>")]
    assert read(weigh(prompt, class_tokens="last")) == [("star</w>", 0.5), *letters]
    assert read(weigh(prompt, class_tokens="last", modifiers="none")) == [("star</w>", 1.0)]


@pytest.mark.parametrize("class_tokens", ["mean", "last"])
@pytest.mark.parametrize("modifiers", ["ing_next", "none"])
@pytest.mark.parametrize("name", ["star", "red star", "zebra crossing"])
@pytest.mark.parametrize("behind", ["", " sitting", ", here"])
def test_columns_sum_to_one_and_emphasis_is_the_name_s_alone(class_tokens, modifiers, name, behind):
    prompt = build_prompt(TEMPLATE, name, f"a photograph of {name}{behind}" if behind else "")
    weights = weigh(prompt, class_tokens=class_tokens, modifiers=modifiers, class_weight=1.5)
    plain = weigh(prompt, class_tokens=class_tokens, modifiers="none")
    assert weights.columns.sum().item() == pytest.approx(1)
    assert torch.equal(weights.emphasis, torch.where(plain.columns > 0, 1.5, 1.0))


def test_a_name_behind_the_last_token_is_an_error():
    with pytest.raises(PromptError, match="77 tokens"):
        weigh(build_prompt("circle " * 80 + "{}", "star"))


def test_a_caption_behind_the_last_token_is_cut():
    weights = weigh(build_prompt(TEMPLATE, "star", "circle " * 100))
    assert read_sum(weights) == 1


def read_sum(weights):
    return weights.columns.sum().item()
