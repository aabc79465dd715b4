"""Scores by hand, and the temperature that makes probabilities honest."""

import numpy as np
import pytest
from scipy.special import softmax

from training import scores


def test_scores_by_hand():
    probabilities = np.array([[0.5, 0.25, 0.25], [0.2, 0.8, 0.0], [0.1, 0.9, 0.0]])
    found = scores.score(probabilities, np.array([0, 1, 2]))
    assert found["accuracy"] == 0.66667
    assert found["loss"] == pytest.approx(-np.log([0.5, 0.8, 1e-7]).mean(), abs=1e-5)  # none is less likely than 1e-7


@pytest.mark.parametrize("honest", [0.5, 1.0, 2.5])
def test_the_temperature_makes_probabilities_honest(honest):
    """Labels drawn from softmax(logits / T): T is found, and none beside it does better."""
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(4000, 8))
    labels = np.array([rng.choice(8, p=p) for p in softmax(logits / honest, axis=1)])
    given = softmax(logits, axis=1)
    found = scores.fit_temperature(given, labels)
    assert found == pytest.approx(honest, rel=0.05)

    def loss(temperature):
        return -np.log(softmax(np.log(given) / temperature, axis=1)[np.arange(4000), labels]).mean()

    assert loss(found) < min(loss(1.1 * found), loss(found / 1.1))
