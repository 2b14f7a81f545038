"""Background's score and the choice of labels, beside what NumPy makes of the same words."""

import numpy as np
import pytest
import torch

from pseudolabel.config import CrfConfig
from pseudolabel.crf.scores import choose_labels, with_background

SCORES = torch.tensor([[[0.0, 0.25, 1.0]], [[0.5, 0.0, 0.0]]])


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (CrfConfig(), [0.5, 0.75, 0.0]),
        (CrfConfig(background_value=2.0), [0.25, 0.5625, 0.0]),
        (CrfConfig(background="threshold", background_value=0.3), [0.3, 0.3, 0.3]),
    ],
)
def test_background_comes_first(config, expected):
    stacked = with_background(SCORES, config)
    assert stacked.dtype == torch.float32
    np.testing.assert_allclose(stacked[0, 0], expected)
    assert torch.equal(stacked[1:], SCORES)


@pytest.mark.parametrize("with_marginals", [True, False])
def test_labels_and_winning_probabilities(with_marginals):
    rng = np.random.default_rng(0)
    scores = rng.random((4, 5, 6), np.float32)
    marginals = scores / scores.sum(0)
    config = CrfConfig(ignore_below=0.4)
    given = torch.from_numpy(marginals) if with_marginals else None
    labels, winning, best = choose_labels(torch.from_numpy(scores), given, (3, 7, 20), config)
    expected = np.array([0, 3, 7, 20])[scores.argmax(0)]
    np.testing.assert_array_equal(best, expected)
    expected[marginals.max(0) < 0.4] = 255
    assert labels.dtype == torch.uint8
    assert 0 < (expected == 255).mean() < 1
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_allclose(winning, marginals.max(0), rtol=1e-6)


def test_ties_go_to_background_and_then_to_the_earlier_class():
    scores = torch.tensor([[[0.5, 0.1]], [[0.5, 0.6]], [[0.5, 0.6]]])
    for marginals in (None, scores / scores.sum(0)):
        assert choose_labels(scores, marginals, (4, 9), CrfConfig(ignore_below=0))[0].tolist() == [[0, 4]]
