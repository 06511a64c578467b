"""Language modelling: windows of tokens, scored in bits per character, which are comparable between tokenizers."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from core.errors import SpecError
from core.scores import BITS_PER_CHARACTER, EXCESS_BITS, PERPLEXITY, TOKEN_ACCURACY, Score
from core.tasks.base import InputFormat
from core.tasks.characters import characters_of_tokens, excess_factor
from core.tasks.data import CorpusData
from core.tasks.windows import IGNORED, WindowSplit, WindowTask


class LanguageTask(WindowTask):
    """A task on `CorpusData`: predict each token of a window from those before it.

    Windows do not overlap. The last one of validation and test is padded with tokens that are not
    scored, so every token except the first of a split is predicted exactly once; train drops it.
    """

    score: Score = BITS_PER_CHARACTER

    def __init__(self, name: str, data: CorpusData):
        super().__init__(name, data)
        self.data = data
        self._characters = torch.empty(0)  # [vocab_size]

    def encoded(self, format: InputFormat) -> dict[str, WindowSplit]:
        """Windows are at most `format.length` tokens long; raises SpecError if a split is shorter than one."""
        length = min(self.data.length, format.length or self.data.length)
        tokens = {split: torch.tensor(format.tokenizer.encode(text)) for split, text in self.data.texts.items()}
        counts = characters_of_tokens(format.tokenizer)
        self._characters = counts * excess_factor(counts, tokens["test"], self.data.texts["test"])
        return {split: self._cut(split, encoded, length) for split, encoded in tokens.items()}

    def _cut(self, split: str, tokens: Tensor, length: int) -> WindowSplit:
        n_predicted = max(0, len(tokens) - 1)
        n_windows = n_predicted // length if split == "train" else math.ceil(n_predicted / length)
        if n_windows == 0:
            raise SpecError.of(
                "task.length",
                length,
                f"is too long for the {split} split of {len(tokens):,} tokens",
                "Choose a shorter window or a longer text.",
            )
        end = min(n_predicted, n_windows * length)
        filled = n_windows * length - end
        input_ids = F.pad(tokens[:end], (0, filled), value=self._tokenizer.pad_id)
        labels = F.pad(tokens[1 : end + 1], (0, filled), value=IGNORED)
        return WindowSplit(input_ids.view(n_windows, length), labels.view(n_windows, length))

    def per_example(self, logits: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sums over each window [B]: `nats`, `tokens` and `characters` predicted, `correct` tokens."""
        labels = batch["labels"]
        characters = self._characters.to(labels.device)[labels.clamp(min=0)] * (labels != IGNORED)
        return {**super().per_example(logits, batch), "characters": characters.sum(dim=1)}

    def summarize(self, examples: dict[str, Tensor]) -> dict[str, float]:
        """Bits per character and its excess over the source's entropy where that is known; perplexity and
        accuracy (%) per token."""
        nats, characters, tokens, correct = (
            examples[key].double().sum().item() for key in ("nats", "characters", "tokens", "correct")
        )
        bits_per_character = BITS_PER_CHARACTER.of_sums(nats, characters)
        scores = {BITS_PER_CHARACTER.name: bits_per_character}
        if self.data.entropy is not None:
            scores[EXCESS_BITS.name] = bits_per_character - self.data.entropy
        perplexity = math.exp(min(nats / tokens, 700))
        return {**scores, PERPLEXITY.name: perplexity, TOKEN_ACCURACY.name: TOKEN_ACCURACY.of_sums(correct, tokens)}

    def show(self, split: str, indices: list[int]) -> list[dict[str, Any]]:
        """The windows' texts."""
        windows = self.split(split).batch(torch.tensor(indices))["input_ids"]
        return [{"text": self._tokenizer.decode(window.tolist()), "label": ""} for window in windows]
