"""A tokenizer of single bytes, for checkpoints that benchmarks make."""

from pathlib import Path

N_TOKENS = 257  # every byte, and padding as number 0


def save_byte_tokenizer(folder: Path) -> None:
    """Write the tokenizer as `save_pretrained` does."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({"[PAD]": 0, **{letter: i + 1 for i, letter in enumerate(alphabet)}}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(folder)
