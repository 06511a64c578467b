"""The number of characters of each token, so that scores per character do not depend on the tokenizer."""

from typing import Any

import torch
from torch import Tensor


def characters_of_tokens(tokenizer: Any) -> Tensor:
    """Characters that each token of the vocabulary begins [vocab_size].

    A single-byte token counts one character if the byte starts one in UTF-8, else none. Other tokens count
    the characters that they add when decoded after another token (alone, some tokenizers drop their leading space).
    """
    if _is_bytes(tokenizer):
        values = torch.arange(tokenizer.vocab_size)
        return ((values < 0x100) & (values & 0xC0 != 0x80)).float()
    before = tokenizer.encode("a")[-1:]
    n_before = len(tokenizer.decode(before))
    counts = [len(tokenizer.decode([*before, token])) - n_before for token in range(tokenizer.vocab_size)]
    return torch.tensor(counts, dtype=torch.float)


def _is_bytes(tokenizer: Any) -> bool:
    """Whether each token below 256 is a byte of UTF-8."""
    sample = "a\N{EURO SIGN}\N{GRINNING FACE}"
    return tokenizer.encode(sample) == list(sample.encode())


def excess_factor(characters: Tensor, tokens: Tensor, text: str) -> float:
    """The factor by which the tokens' counts add up to the text: 1 except for characters split into several tokens."""
    return len(text) / max(1.0, characters[tokens].sum().item())
