"""How many tokens of a text a Hugging Face model reads."""

from typing import Any

from core.errors import SpecError

DEFAULT = 256


def longest_of(hf_config: Any) -> int | None:
    """Tokens that a model takes at most; None if its config does not say."""
    n_positions: int | None = getattr(hf_config, "max_position_embeddings", None)
    if n_positions is not None and hf_config.model_type in ("roberta", "xlm-roberta", "camembert"):
        return n_positions - hf_config.pad_token_id - 1  # their positions begin after the padding's
    return n_positions


def text_length(hf_config: Any, asked: int | None, of_task: int | None, of_checkpoint: int | None) -> int:
    """Tokens of a text: those `asked` for, else the least of what task, checkpoint and model take.

    Raises SpecError if more are asked for than the model takes.
    """
    longest = longest_of(hf_config)
    if asked is None:
        known = [length for length in (of_task, of_checkpoint) if length]
        return min(*(known or [DEFAULT]), longest or DEFAULT)
    if longest is not None and asked > longest:
        message = f"exceeds the model's maximum of {longest} tokens"
        raise SpecError.of("model.length", asked, message, f"Choose at most {longest}.")
    return asked
