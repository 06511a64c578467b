"""Text of known entropy: letters drawn from a fixed Markov source, whose entropy rate is computed exactly.

No model can average fewer bits per character than the source's entropy rate, so the excess over it is the loss
of a model or its compression. (A window's first characters are predicted from fewer characters than the source's
order, so even the best model has an excess of some thousandths at the default length.)
"""

import string
from bisect import bisect
from functools import cache

import numpy as np
from pydantic import Field

from core.tasks.data import CorpusData, TaskSource

CHARACTERS = {"train": 1_000_000, "validation": 100_000, "test": 200_000}
VERSION = 1  # of what the fixed seeds below are turned into
TRANSITION_SEED = 20_010
TEXT_SEEDS = {"train": 20_011, "validation": 20_012, "test": 20_013}
FLOOR = 0.01  # share of the uniform distribution in every transition: no letter is impossible


class Markov(TaskSource):
    """Text from a Markov source of known entropy: shows how far a language model is from the optimum."""

    order: int = Field(2, ge=1, le=3, description="number of letters that the next one depends on")
    symbols: int = Field(16, ge=2, le=26, description="size of the alphabet")
    concentration: float = Field(0.3, ge=0.05, le=10, description="smaller values make the text more predictable")
    length: int = Field(256, ge=8, le=4096, description="tokens per window")

    def read(self, name: str) -> CorpusData:
        """The three texts, each an independent sample that starts in the source's long-run distribution."""
        source = (self.order, self.symbols, self.concentration)
        return CorpusData(
            texts={split: _text(*source, TEXT_SEEDS[split], n) for split, n in CHARACTERS.items()},
            length=self.length,
            content_hash=self.identity(VERSION, TRANSITION_SEED, TEXT_SEEDS, CHARACTERS, FLOOR),
            entropy=entropy_rate(transitions(*source)),
        )


@cache
def transitions(order: int, symbols: int, concentration: float) -> np.ndarray:
    """Probability of the next letter after each context [symbols ** order, symbols]; the rows sum to 1.

    A context is its letters as the digits of a number, the oldest first.
    """
    random = np.random.default_rng(TRANSITION_SEED)
    drawn = random.dirichlet([concentration] * symbols, size=symbols**order)
    return (1 - FLOOR) * drawn + FLOOR / symbols


def stationary(probabilities: np.ndarray) -> np.ndarray:
    """Long-run share of each context [contexts], by iterating the chain until convergence."""
    n_contexts, symbols = probabilities.shape
    share = np.full(n_contexts, 1 / n_contexts)
    while True:
        flow = (share[:, None] * probabilities).reshape(symbols, -1)  # oldest letter first; it drops out
        following = flow.sum(axis=0)
        if np.abs(following - share).sum() < 1e-12:
            return following / following.sum()
        share = following


def entropy_rate(probabilities: np.ndarray) -> float:
    """Bits per letter of the source: the contexts' entropies, weighted by how often each occurs."""
    bits = -(probabilities * np.log2(probabilities)).sum(axis=1)
    return float(stationary(probabilities) @ bits)


@cache
def _text(order: int, symbols: int, concentration: float, seed: int, n_characters: int) -> str:
    probabilities = transitions(order, symbols, concentration)
    random = np.random.default_rng(seed)
    context = int(random.choice(len(probabilities), p=stationary(probabilities)))
    limits = probabilities.cumsum(axis=1)[:, :-1].tolist()
    letters = []
    for uniform in random.random(n_characters).tolist():
        letter = bisect(limits[context], uniform)
        letters.append(letter)
        context = (context * symbols + letter) % len(limits)
    return "".join(map(string.ascii_lowercase.__getitem__, letters))
