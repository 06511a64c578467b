"""Language modelling: a text as windows of tokens, scored in bits per character so that tokenizers compare."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from core.errors import SpecError
from core.tasks.base import InputFormat, Split
from core.tasks.characters import characters_of_tokens, excess_factor
from core.tasks.data import CorpusData, calibration_indices
from core.tasks.kinds import Kind, Score

BITS_PER_CHARACTER = Score("bits per character", "bits", higher_is_better=False)
IGNORED = -100  # label of what is not predicted (cross entropy's own mark)


class LanguageTask:
    """A task on `CorpusData`: predict each token of a window from those before it.

    Windows do not overlap. The last one of validation and test is filled up with tokens that are not
    scored, so that every token but the first of a split is predicted exactly once; train drops it.
    """

    score = BITS_PER_CHARACTER
    class_names: tuple[str, ...] = ()

    def __init__(self, name: str, data: CorpusData):
        self.name, self.data = name, data
        self.kind: Kind = data.kind
        self.n_classes: int | None = None
        self.image_shape: tuple[int, int, int] | None = None
        self.length: int | None = data.length
        self.content_hash = data.content_hash
        self._tokenizer: Any = None
        self._windows: dict[str, WindowSplit] = {}
        self._characters = torch.empty(0)  # [vocab_size]

    def prepare(self, format: InputFormat) -> None:
        """Encode every split with the model's tokenizer; windows are at most `format.length` tokens long."""
        self._tokenizer = format.tokenizer
        self.length = length = min(self.data.length, format.length or self.data.length)
        tokens = {split: torch.tensor(format.tokenizer.encode(text)) for split, text in self.data.texts.items()}
        counts = characters_of_tokens(format.tokenizer)
        self._characters = counts * excess_factor(counts, tokens["test"], self.data.texts["test"])
        self._windows = {split: self._cut(split, encoded, length) for split, encoded in tokens.items()}
        train = self._windows["train"]
        chosen = torch.from_numpy(calibration_indices(len(train)))
        self._windows["calibration"] = WindowSplit(train.input_ids[chosen], train.labels[chosen])

    def _cut(self, split: str, tokens: Tensor, length: int) -> "WindowSplit":
        n_predicted = max(0, len(tokens) - 1)
        n_windows = n_predicted // length if split == "train" else math.ceil(n_predicted / length)
        if n_windows == 0:
            raise SpecError.of(
                "task.length",
                length,
                f"leaves no window in the {split} split of {len(tokens):,} tokens",
                "Choose shorter windows or a longer text.",
            )
        end = min(n_predicted, n_windows * length)
        filled = n_windows * length - end
        input_ids = F.pad(tokens[:end], (0, filled), value=self._tokenizer.pad_id)
        labels = F.pad(tokens[1 : end + 1], (0, filled), value=IGNORED)
        return WindowSplit(input_ids.view(n_windows, length), labels.view(n_windows, length))

    def split(self, name: str) -> Split:
        """Windows as `input_ids` and `labels` [B, T], the labels one token ahead."""
        if not self._windows:
            raise RuntimeError("prepare the task with the model's tokenizer before taking a split")
        return self._windows[name]

    def loss(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Mean cross entropy of the tokens, in nats."""
        return token_loss(logits, batch["labels"])

    def per_example(self, logits: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sums over each window [B]: `nats`, `characters` and `tokens` predicted, `correct` tokens."""
        labels = batch["labels"]
        characters = self._characters.to(labels.device)[labels.clamp(min=0)] * (labels != IGNORED)
        return {**token_sums(logits, labels), "characters": characters.sum(dim=1)}

    def summarize(self, examples: dict[str, Tensor]) -> dict[str, float]:
        """Bits per character and its excess over the source's entropy where that is known; perplexity and
        accuracy (%) per token."""
        nats, characters, tokens, correct = (
            examples[key].double().sum().item() for key in ("nats", "characters", "tokens", "correct")
        )
        bits_per_character = nats / math.log(2) / characters
        scores = {"bits per character": bits_per_character}
        if self.data.entropy is not None:
            scores["excess over the source's entropy"] = bits_per_character - self.data.entropy
        return {**scores, "perplexity": math.exp(min(nats / tokens, 700)), "token accuracy": 100 * correct / tokens}

    def show(self, split: str, indices: list[int]) -> list[dict[str, Any]]:
        """The windows' texts."""
        windows = self.split(split).batch(torch.tensor(indices))["input_ids"]
        return [{"text": self._tokenizer.decode(window.tolist()), "label": ""} for window in windows]


def token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy, in nats, of the tokens [B, T] that are not IGNORED; logits [B, T, vocab_size]."""
    return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED)


def token_sums(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Of each row of labels [B, T], over those not IGNORED [B]: `nats`, how many `tokens`, how many `correct`."""
    nats = F.cross_entropy(logits.transpose(1, 2).float(), labels, reduction="none", ignore_index=IGNORED)  # [B, T]
    scored = labels != IGNORED
    return {
        "nats": nats.sum(dim=1),
        "tokens": scored.sum(dim=1).float(),
        "correct": ((logits.argmax(dim=-1) == labels) & scored).sum(dim=1).float(),
    }


class WindowSplit:
    """Windows of tokens in the order of the text."""

    def __init__(self, input_ids: Tensor, labels: Tensor):
        self.input_ids, self.labels = input_ids, labels  # [N, T]

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        """`input_ids` and `labels` [B, T]."""
        return {"input_ids": self.input_ids[indices], "labels": self.labels[indices]}
