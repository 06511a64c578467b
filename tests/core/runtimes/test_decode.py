import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from core.models.gpt import Gpt
from core.runtimes.decode import decoder_of


def builtin():
    blocks = {
        "dim": 16,
        "depth": 2,
        "heads": 2,
        "kv_heads": 2,
        "attention": "full",
        "attention_settings": {},
        "ffn": "mlp",
        "ffn_dim": 32,
    }
    model = Gpt(vocab_size=50, length=16, positions="learned", tied=True, **blocks)
    return lambda ids: model(ids), model


def hugging_face():
    config = GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2, attn_pdrop=0.0)
    model = GPT2LMHeadModel(config)
    return lambda ids: model(ids).logits, model


@pytest.mark.parametrize("make", [builtin, hugging_face])
@torch.no_grad()
def test_decoding_with_a_cache_chooses_the_tokens_that_the_whole_model_would(make):
    torch.manual_seed(0)
    logits, model = make()
    for parameter in model.parameters():
        parameter.normal_()
    model.eval()
    tokens = torch.randint(50, (2, 5))
    decoder = decoder_of(model)
    decoder.prefill({"input_ids": tokens}, 6)
    for _ in range(6):
        expected = logits(tokens)[:, -1:].argmax(-1)
        assert torch.equal(decoder.token, expected)
        tokens = torch.cat([tokens, expected], dim=1)
        decoder.step()


def test_what_does_not_generate_has_no_decoder():
    config = BertConfig(vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    assert decoder_of(BertForSequenceClassification(config)) is None
    assert decoder_of(nn.Linear(2, 2)) is None
