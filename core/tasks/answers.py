"""Language modelling of which only some tokens count: the answers, scored by how many are right."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from core.errors import SpecError
from core.tasks.base import InputFormat, Split
from core.tasks.data import AnswersData, calibration_indices
from core.tasks.kinds import Kind, Score
from core.tasks.language import IGNORED, WindowSplit, token_loss, token_sums

ANSWER_ACCURACY = Score("answer accuracy", "%", higher_is_better=True)


class AnswersTask:
    """A task on `AnswersData`: predict the tokens of the answers from all that is before them, earlier answers too."""

    score = ANSWER_ACCURACY
    class_names: tuple[str, ...] = ()

    def __init__(self, name: str, data: AnswersData):
        self.name, self.data = name, data
        self.kind: Kind = data.kind
        self.n_classes: int | None = None
        self.image_shape: tuple[int, int, int] | None = None
        self.length: int | None = data.length
        self.content_hash = data.content_hash
        self._tokenizer: Any = None
        self._splits: dict[str, WindowSplit] = {}

    def prepare(self, format: InputFormat) -> None:
        """Encode every split; raises SpecError where a sequence is longer than the model takes."""
        self._tokenizer = format.tokenizer
        self._splits = {split: self._encode(split) for split in self.data.texts}
        self.length = length = max(split.labels.shape[1] for split in self._splits.values())
        if format.length is not None and length > format.length:
            message = f"is more than the {format.length} tokens that the model takes"
            raise SpecError.of("task.length", length, message, "Choose a shorter sequence or a longer context.")
        train = self._splits["train"]
        chosen = torch.from_numpy(calibration_indices(len(train)))
        self._splits["calibration"] = WindowSplit(train.input_ids[chosen], train.labels[chosen])

    def _encode(self, split: str) -> WindowSplit:
        rows = [self._marked(text) for text in self.data.texts[split]]
        tokens = pad_sequence([row for row, _ in rows], batch_first=True, padding_value=self._tokenizer.pad_id)
        labels = pad_sequence([row for _, row in rows], batch_first=True, padding_value=IGNORED)
        return WindowSplit(tokens[:, :-1], labels[:, 1:])

    def _marked(self, text: str) -> tuple[Tensor, Tensor]:
        """The tokens of a text, and the same with IGNORED where there is no answer [n]."""
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

    def split(self, name: str) -> Split:
        """Sequences as `input_ids` and `labels` [B, T], the labels one token ahead."""
        if not self._splits:
            raise RuntimeError("prepare the task with the model's tokenizer before taking a split")
        return self._splits[name]

    def loss(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Mean cross entropy of the answers' tokens, in nats."""
        return token_loss(logits, batch["labels"])

    def per_example(self, logits: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sums over the answers of each sequence [B]: `nats`, `tokens` and `correct` tokens."""
        return token_sums(logits, batch["labels"])

    def summarize(self, examples: dict[str, Tensor]) -> dict[str, float]:
        """Accuracy (%) and cross entropy (nats) per answer, and the share (%) of sequences with no wrong one."""
        nats, tokens, correct = (examples[key].double() for key in ("nats", "tokens", "correct"))
        return {
            "answer accuracy": 100 * (correct.sum() / tokens.sum()).item(),
            "faultless sequences": 100 * (correct == tokens).double().mean().item(),
            "cross entropy": (nats.sum() / tokens.sum()).item(),
        }

    def show(self, split: str, indices: list[int]) -> list[dict[str, Any]]:
        """The sequences, their answers included, and the answers by themselves."""
        batch = self.split(split).batch(torch.tensor(indices))
        shown = zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True)
        return [
            {
                "text": self._tokenizer.decode(tokens),
                "label": self._tokenizer.decode([label for label in labels if label != IGNORED]),
            }
            for tokens, labels in shown
        ]
