"""Language modelling in which only some tokens count: the answers, scored by accuracy."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from core.errors import SpecError
from core.scores import ANSWER_ACCURACY, CROSS_ENTROPY, FAULTLESS_SEQUENCES, PERCENT, Score
from core.tasks.base import InputFormat
from core.tasks.data import AnswersData
from core.tasks.windows import IGNORED, WindowSplit, WindowTask


class AnswersTask(WindowTask):
    """A task on `AnswersData`: predict the tokens of the answers from everything before, including earlier answers."""

    score: Score = ANSWER_ACCURACY

    def __init__(self, name: str, data: AnswersData):
        super().__init__(name, data)
        self.data = data

    def encoded(self, format: InputFormat) -> dict[str, WindowSplit]:
        """One window per sequence; raises SpecError if one exceeds the model's maximum length."""
        windows = {split: self._encode(split) for split in self.data.texts}
        length = max(split.labels.shape[1] for split in windows.values())
        if format.length is not None and length > format.length:
            message = f"exceeds the model's maximum of {format.length} tokens"
            raise SpecError.of("task.length", length, message, "Choose a shorter sequence or a longer context.")
        return windows

    def _encode(self, split: str) -> WindowSplit:
        rows = [self._marked(text) for text in self.data.texts[split]]
        tokens = pad_sequence([row for row, _ in rows], batch_first=True, padding_value=self._tokenizer.pad_id)
        labels = pad_sequence([row for _, row in rows], batch_first=True, padding_value=IGNORED)
        return WindowSplit(tokens[:, :-1], labels[:, 1:])

    def _marked(self, text: str) -> tuple[Tensor, Tensor]:
        """The tokens of a text, and the same with IGNORED outside the answers [n]."""
        tokens: list[int] = []
        labels: list[int] = []
        start = 0
        for place in self.data.answers:
            given, answer = (self._tokenizer.encode(part) for part in (text[start:place], text[place : place + 1]))
            tokens += given + answer
            labels += [IGNORED] * len(given) + answer
            start = place + 1
        rest = self._tokenizer.encode(text[start:])
        return torch.tensor(tokens + rest), torch.tensor(labels + [IGNORED] * len(rest))

    def summarize(self, examples: dict[str, Tensor]) -> dict[str, float]:
        """Accuracy (%) and cross entropy (nats) per answer, and the share (%) of sequences without wrong ones."""
        nats, tokens, correct = (examples[key].double() for key in ("nats", "tokens", "correct"))
        return {
            ANSWER_ACCURACY.name: ANSWER_ACCURACY.of_sums(correct.sum().item(), tokens.sum().item()),
            FAULTLESS_SEQUENCES.name: PERCENT * (correct == tokens).double().mean().item(),
            CROSS_ENTROPY.name: (nats.sum() / tokens.sum()).item(),
        }

    def show(self, split: str, indices: list[int]) -> list[dict[str, Any]]:
        """The sequences, including their answers, and the answers alone."""
        batch = self.split(split).batch(torch.tensor(indices))
        shown = zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True)
        return [
            {
                "text": self._tokenizer.decode(tokens),
                "label": self._tokenizer.decode([label for label in labels if label != IGNORED]),
            }
            for tokens, labels in shown
        ]
