import pytest
import torch
import transformers

from core.models.conv1d import convert_conv1d_
from core.nn.attention.huggingface_sliding_window import HuggingFaceSlidingWindow, unsupported
from core.nn.catalogue import REPLACEMENTS

SIZES = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = {"intermediate_size": 48, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2, **SIZES}


def tiny(family, **settings):
    torch.manual_seed(0)
    config = {
        "llama": lambda: transformers.LlamaConfig(**LLAMA, **settings),
        "mistral": lambda: transformers.MistralConfig(**LLAMA, **{"sliding_window": None, **settings}),
        "qwen2": lambda: transformers.Qwen2Config(**LLAMA),
        "opt": lambda: transformers.OPTConfig(ffn_dim=48, word_embed_proj_dim=32, max_position_embeddings=64, **SIZES),
        "gpt2": lambda: transformers.GPT2Config(n_positions=64, bos_token_id=1, eos_token_id=2, **SIZES),
        "mixtral": lambda: transformers.MixtralConfig(num_local_experts=4, **LLAMA),
    }[family]()
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():  # transformers' 0.02 leaves attention all but uniform, which hides mistakes
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)
    convert_conv1d_(model)
    return model


def swapped(model, window):
    for name, module in list(model.named_modules()):
        if type(module).__name__.endswith("Attention"):
            model.set_submodule(name, HuggingFaceSlidingWindow.from_attention(module, window))
    return model


FAMILIES = ["llama", "mistral", "qwen2", "opt", "gpt2"]


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_window_over_all_tokens_changes_nothing(family):
    ids = torch.randint(3, 64, (2, 12))
    expected = tiny(family)(ids).logits
    torch.testing.assert_close(swapped(tiny(family), 12)(ids).logits, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(swapped(tiny(family), 3)(ids).logits, expected, atol=1e-3)


@torch.no_grad()
def test_window_is_mistrals_own():
    ids = torch.randint(3, 64, (2, 23))
    expected = tiny("mistral", sliding_window=5)(ids).logits
    torch.testing.assert_close(swapped(tiny("mistral"), 5)(ids).logits, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(("own", "window"), [(4, 4), (4, 3), (8, 3), (64, 5), (4, 9)])
def test_a_window_that_the_model_has_hides_no_key_from_earlier_queries(own, window, attention):
    ids = torch.randint(3, 64, (2, 23))
    expected = tiny("mistral", sliding_window=min(own, window))(ids).logits
    model = swapped(tiny("mistral", sliding_window=own), window)
    model.config._attn_implementation = attention
    torch.testing.assert_close(model(ids).logits, expected, rtol=1e-4, atol=1e-5)
    cache, parts = None, []
    for piece in ids.split([9, 1, 5, 1, 7], dim=1):
        output = model(piece, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        parts.append(output.logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("window", [2, 5, 64])
@pytest.mark.parametrize("family", FAMILIES)
def test_decoding_with_the_cache_equals_recomputation(family, window):
    model = swapped(tiny(family), window)
    ids = torch.randint(3, 64, (2, 20))
    cache, parts = None, []
    for piece in ids.split([9, 1, 1, 4, 1, 4], dim=1):
        output = model(piece, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        parts.append(output.logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), model(ids, use_cache=False).logits, rtol=1e-4, atol=1e-4)
    assert cache.layers[0].keys.shape[2] == min(20, window - 1)


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "opt"])
def test_padding_before_a_text_is_not_seen(family):
    model = swapped(tiny(family), 4)
    ids = torch.randint(3, 64, (2, 9))
    padded = torch.cat((torch.zeros(2, 5, dtype=torch.long), ids), dim=1)
    mask = (torch.arange(14) >= 5).long().expand(2, -1)
    out = model(padded, attention_mask=mask, use_cache=False).logits[:, 5:]
    torch.testing.assert_close(out, model(ids, use_cache=False).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_arguments_make_an_equal_module(family):
    model = swapped(tiny(family), 6)
    made = next(m for m in model.modules() if isinstance(m, HuggingFaceSlidingWindow))
    with torch.device("meta"):
        again = REPLACEMENTS["HuggingFaceSlidingWindow"](**made.arguments())
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in made.named_parameters()}
    assert again.arguments() == made.arguments()


def test_what_attends_otherwise_is_refused_with_the_reason():
    config = transformers.GPT2Config(n_positions=64, scale_attn_by_inverse_layer_idx=True, **SIZES)
    model = transformers.GPT2LMHeadModel(config)
    reason = unsupported(model.transformer.h[1].attn)
    assert reason is not None and "does not scale its scores" in reason
    with pytest.raises(ValueError, match="Linear is not among"):
        HuggingFaceSlidingWindow.from_attention(torch.nn.Linear(1, 1), 4)
