import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from core.models.tokenizer import ByteTokenizer, PretrainedTokenizer
from core.tasks.characters import characters_of_tokens, excess_factor


class WordTokenizer:
    """Words with the space before them; alone, a word is decoded without its space."""

    words = ("a", " one", " three", "!", "?")
    vocab_size, pad_id, unknown = 5, 0, 4

    def encode(self, text: str) -> list[int]:
        ids = []
        while text:
            token = next((i for i, word in enumerate(self.words) if text.startswith(word)), self.unknown)
            ids.append(token)
            text = text.removeprefix(self.words[token]) if token != self.unknown else text[1:]
        return ids

    def decode(self, ids: list[int]) -> str:
        return "".join(self.words[i] for i in ids).lstrip()


def test_bytes_count_the_characters_that_they_begin():
    counts = characters_of_tokens(ByteTokenizer())
    tokens = torch.tensor(ByteTokenizer().encode("aß…😀"))  # 1, 2, 3 and 4 bytes
    assert counts[tokens].tolist() == [1, 1, 0, 1, 0, 0, 1, 0, 0, 0]
    assert counts[ByteTokenizer.pad_id] == 0


def test_other_tokens_count_what_they_add_to_a_text():
    assert characters_of_tokens(WordTokenizer()).tolist() == [1, 4, 6, 1, 1]


def test_factor_makes_the_counts_add_up_to_the_text():
    counts = torch.tensor([1.0, 1.0])  # two halves of a character, each counted as one
    assert excess_factor(counts, torch.tensor([0, 1, 0, 1]), "ßß") == 0.5


@pytest.mark.parametrize("space", ["Ġ", "▁"])
def test_subword_tokenizers_count_the_whole_text(space):
    text = "The cat… sat on the mat, and the cat ate the hat.\n" * 30
    tokenizer = Tokenizer(models.BPE(unk_token="?"))
    if space == "Ġ":  # as in GPT-2: pieces of UTF-8
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    else:  # as in LLaMA: pieces of characters, a space before the first word
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator([text], trainers.BpeTrainer(vocab_size=60, special_tokens=["?"], show_progress=False))
    wrapped = PretrainedTokenizer(PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="?"), None)
    counts = characters_of_tokens(wrapped)
    tokens = torch.tensor(wrapped.encode(text))
    factor = excess_factor(counts, tokens, text)
    assert 0.9 < factor < 1.01
    assert (counts * factor)[tokens].sum().item() == pytest.approx(len(text), rel=1e-5)
    plain = text.replace("…", "")
    within = torch.tensor(wrapped.encode(plain))
    assert counts[within].sum().item() == pytest.approx(len(plain), abs=1)  # at most the space before the first word
