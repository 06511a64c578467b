import numpy as np
import pytest

from core.tasks.sources.markov import Markov, entropy_rate, stationary, transitions


def test_entropy_rate_of_two_letters_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.5, 0.5]])  # stationary: 5/6, 1/6
    assert stationary(probabilities) == pytest.approx([5 / 6, 1 / 6])
    of_a = -(0.9 * np.log2(0.9) + 0.1 * np.log2(0.1))
    assert entropy_rate(probabilities) == pytest.approx(5 / 6 * of_a + 1 / 6 * 1.0)


def test_uniform_source_has_the_alphabets_entropy():
    assert entropy_rate(np.full((64, 8), 1 / 8)) == pytest.approx(3)


@pytest.mark.parametrize("order", [1, 2])
def test_text_has_the_entropy_that_is_claimed(order):
    data = Markov(order=order, symbols=5).read("markov")
    probabilities = transitions(order, 5, 0.3)
    letters = np.frombuffer(data.texts["train"].encode(), dtype=np.uint8).astype(int) - ord("a")
    context = sum(letters[i : len(letters) - order + i] * 5 ** (order - 1 - i) for i in range(order))
    bits = -np.log2(probabilities[context, letters[order:]])
    error = bits.std() / np.sqrt(len(bits))
    assert data.entropy == pytest.approx(bits.mean(), abs=5 * error) and error < 0.002


def test_letters_follow_their_contexts_as_often_as_the_source_says():
    data = Markov(order=1, symbols=3).read("markov")
    letters = np.frombuffer(data.texts["train"].encode(), dtype=np.uint8).astype(int) - ord("a")
    counts = np.bincount(letters[:-1] * 3 + letters[1:], minlength=9).reshape(3, 3)
    assert counts / counts.sum(axis=1, keepdims=True) == pytest.approx(transitions(1, 3, 0.3), abs=0.01)
