"""Text as the bytes of its UTF-8: the tokenizer of the built-in text models."""

from collections.abc import Sequence


class ByteTokenizer:
    """One token a byte, and one to pad with; every text can be encoded and comes back the same."""

    pad_id = 256
    vocab_size = 257

    def encode(self, text: str) -> list[int]:
        """The bytes of `text`."""
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these bytes; padding is left out, broken sequences become U+FFFD."""
        return bytes(i for i in ids if i < 256).decode(errors="replace")
