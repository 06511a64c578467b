"""Generates one token at a time with cached keys and values: built-in decoders and Hugging Face's."""

from typing import Any, Protocol

from torch import Tensor, nn

Batch = dict[str, Tensor]


class Decoder(Protocol):
    """A language model that continues a prompt greedily."""

    def prefill(self, batch: Batch, n_tokens: int) -> None:
        """Read the prompt (`input_ids` [B, T]), make room for `n_tokens` more, choose the first of them."""
        ...

    def step(self) -> None:
        """Feed the last chosen token and choose the next."""
        ...


class HuggingFaceDecoder:
    """A `transformers` causal language model, through `past_key_values`."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.cache: Any = None
        self.token: Tensor | None = None  # [B, 1]

    def prefill(self, batch: Batch, n_tokens: int) -> None:
        """Read the prompt; see `Decoder`. The cache grows by itself."""
        self._take(self.model(input_ids=batch["input_ids"], use_cache=True))

    def step(self) -> None:
        """One more token; see `Decoder`."""
        self._take(self.model(input_ids=self.token, past_key_values=self.cache, use_cache=True))

    def _take(self, output: Any) -> None:
        self.cache = output.past_key_values
        self.token = output.logits[:, -1:].argmax(-1)


class BuiltinDecoder:
    """A built-in decoder, through the cache that its layers make (`make_cache`)."""

    def __init__(self, model: Any):
        self.model = model
        self.cache: Any = None
        self.token: Tensor | None = None  # [B, 1]

    def prefill(self, batch: Batch, n_tokens: int) -> None:
        """Read the prompt; see `Decoder`."""
        prompt = batch["input_ids"]
        self.cache = self.model.make_cache(prompt.shape[1] + n_tokens)
        self._take(self.model(prompt, cache=self.cache))

    def step(self) -> None:
        """One more token; see `Decoder`."""
        self._take(self.model(self.token, cache=self.cache))

    def _take(self, logits: Tensor) -> None:
        self.token = logits[:, -1:].argmax(-1)


def decoder_of(model: nn.Module) -> Decoder | None:
    """The model as a generator of tokens; None for one that does not generate."""
    if not hasattr(model, "generate"):
        return None
    if hasattr(model, "make_cache"):
        return BuiltinDecoder(model)
    config = getattr(model, "config", None)
    generates = getattr(model, "can_generate", None)
    if generates is not None and generates() and not getattr(config, "is_encoder_decoder", False):
        return HuggingFaceDecoder(model)
    return None
