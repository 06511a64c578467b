"""Tokenizers: bytes for the built-in models, a checkpoint's own tokenizer for Hugging Face's."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_OPTIONS = "slimboard.json"


class ByteTokenizer:
    """One token per UTF-8 byte, and a padding token; decoding restores every text."""

    pad_id = 256
    vocab_size = 257

    def vocabulary(self) -> dict[str, int]:
        """Every token with its number: bytes as two hexadecimal digits."""
        return {"[PAD]": self.pad_id, **{f"{byte:02x}": byte for byte in range(256)}}

    def encode(self, text: str) -> list[int]:
        """The bytes of `text`."""
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these bytes; padding is skipped, invalid sequences become U+FFFD."""
        return bytes(i for i in ids if i < 256).decode(errors="replace")


class PretrainedTokenizer:
    """A checkpoint's tokenizer.

    With `length`, a text is encoded by itself, as a classifier wants it: with the special tokens and cut to
    `length`, keeping them. Without, as a part of running text: neither.
    """

    def __init__(self, tokenizer: Any, length: int | None):
        self._tokenizer = tokenizer
        self._length = length
        self.vocab_size: int = len(tokenizer)
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self.pad_id: int = pad if pad is not None else 0  # padded tokens are masked: any will do

    def encode(self, text: str) -> list[int]:
        """The tokens of `text`."""
        if self._length is None:
            return list(self._tokenizer.encode(text, add_special_tokens=False, verbose=False))
        return list(self._tokenizer.encode(text, truncation=True, max_length=self._length))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these tokens."""
        return str(self._tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def vocabulary(self) -> dict[str, int]:
        """Every token with its number."""
        return dict(self._tokenizer.get_vocab())

    def list_beyond(self, n_rows: int) -> list[tuple[str, int]]:
        """Tokens with their numbers, ascending, that an embedding of `n_rows` rows has no row for."""
        beyond = [(token, number) for token, number in self.vocabulary().items() if number >= n_rows]
        return sorted(beyond, key=lambda pair: pair[1])

    def files(self) -> dict[str, bytes]:
        """The files from which `load_tokenizer` loads an equal tokenizer, by name."""
        with tempfile.TemporaryDirectory() as folder:
            self._tokenizer.save_pretrained(folder)
            saved = {file.name: file.read_bytes() for file in Path(folder).iterdir() if file.is_file()}
        return {**saved, _OPTIONS: json.dumps({"length": self._length}).encode()}


def describe_difference(own: Any, other: Any) -> str | None:
    """How the vocabulary of another model's tokenizer differs from the run's own; None if they are equal."""
    if own is None or other is None or own.vocabulary() == other.vocabulary():
        return None
    if own.vocab_size == other.vocab_size:
        return f"has a vocabulary of {other.vocab_size} tokens that differs from the model's"
    return f"has a vocabulary of {other.vocab_size} tokens, but the run's model has {own.vocab_size}"


def load_tokenizer(folder: Path) -> PretrainedTokenizer:
    """The tokenizer from a folder with `PretrainedTokenizer.files`."""
    options = json.loads((folder / _OPTIONS).read_text())
    return read_tokenizer(folder, options["length"])


def read_tokenizer(folder: Path, length: int | None) -> PretrainedTokenizer:
    """The tokenizer of a checkpoint's folder; raises OSError or ValueError if there is none that can be loaded."""
    from transformers import AutoTokenizer

    return PretrainedTokenizer(
        AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False), length
    )
