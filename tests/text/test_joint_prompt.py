import pytest
import torch

from pseudolabel.errors import SampleError
from pseudolabel.text.joint_prompt import JointPrompt, build_joint_prompt, class_token_weights, fits
from pseudolabel.vocabulary import ClassEntry
from tests.plain.architectures import shipped_tokenizer

TEMPLATE = "a photograph of {} outside"
TOKENIZER = shipped_tokenizer()
DOG = ClassEntry("dog", "dog", ("puppy",))
CAR = ClassEntry("car", "red car")
PLANE = ClassEntry("aeroplane", "plane")


def cut(prompt):
    return [prompt.text[start:end] for start, end in prompt.spans]


@pytest.mark.parametrize(
    ("classes", "caption", "text", "names"),
    [
        ([DOG], "", "a photograph of dog outside", ["dog"]),
        ([DOG, CAR, PLANE], "", "a photograph of dog and red car and plane outside", ["dog", "red car", "plane"]),
        ([DOG], "two  Dogs\non grass", "two Dogs on grass", ["Dogs"]),
        ([DOG, CAR], "a puppy beside a hotdog", "a puppy beside a hotdog, red car", ["puppy", "red car"]),
        ([CAR, DOG, PLANE], "a dog barking", "a dog barking, red car and plane", ["red car", "dog", "plane"]),
        ([CAR], "a cartoon of a scar", "a cartoon of a scar, red car", ["red car"]),
        ([PLANE, CAR], "a red car under aeroplanes", "a red car under aeroplanes", ["aeroplanes", "red car"]),
    ],
)
def test_sentence_and_span_of_every_class(classes, caption, text, names):
    prompt = build_joint_prompt(TEMPLATE, classes, caption)
    assert prompt.text == text
    assert cut(prompt) == names


def test_a_tail_ends_the_sentence_and_need_not_fit():
    prompt = build_joint_prompt(TEMPLATE, [DOG, CAR], tail="and " + "grass " * 80)
    assert prompt.text.startswith("a photograph of dog and red car outside and grass grass")
    assert cut(prompt) == ["dog", "red car"]
    assert fits(TOKENIZER, prompt)


@pytest.mark.parametrize(("words", "fitting"), [(72, True), (73, False)])
def test_a_name_must_fit(words, fitting):
    """Start, words, `circle`, `and`, `star` and end are 77 tokens."""
    shapes = [ClassEntry("circle", "circle"), ClassEntry("star", "star")]
    assert fits(TOKENIZER, build_joint_prompt("grass " * words + "{}", shapes)) == fitting


def test_a_classs_columns_are_the_mean_of_its_tokens():
    shapes = [ClassEntry("circle", "circle"), ClassEntry("xyz", "xyz"), ClassEntry("star", "star")]
    prompt = build_joint_prompt("a photograph of {}", shapes)
    weights = class_token_weights(TOKENIZER, prompt)
    assert weights.shape == (3, 77)
    torch.testing.assert_close(weights.sum(1), torch.ones(3))
    tokens = TOKENIZER.convert_ids_to_tokens(TOKENIZER(prompt.text).input_ids)
    found = [[tokens[place].removesuffix("</w>") for place in row.nonzero()[:, 0]] for row in weights]
    assert found == [["circle"], ["x", "y", "z"], ["star"]]
    torch.testing.assert_close(weights[1].unique(), torch.tensor([0, 1 / 3]))


def test_a_name_behind_the_last_token_is_an_error():
    prompt = build_joint_prompt("{}", [DOG], "circle " * 100)
    with pytest.raises(SampleError, match="no token of"):
        class_token_weights(TOKENIZER, prompt)


def test_no_class_is_no_column():
    assert class_token_weights(TOKENIZER, JointPrompt("circle", ())).shape == (0, 77)
