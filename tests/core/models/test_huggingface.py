import dataclasses
import json

import pytest
import torch

import core.models
from core.errors import SpecError
from core.models.meta import assign_weights, empty_weights, tied_parameters
from core.models.tokenizer import load_tokenizer
from core.spec.model import ModelSpec

LANGUAGE = ["llama", "opt", "gpt2"]
IMAGES = ["vit", "deit"]


@pytest.fixture
def task_of(image_task, language_task, text_task):
    tasks = {**dict.fromkeys(LANGUAGE, language_task), **dict.fromkeys(IMAGES, image_task), "bert": text_task}
    return tasks.__getitem__


def batch_of(family):
    if family in IMAGES:
        return {"pixel_values": torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))}
    return {"input_ids": torch.randint(3, 20, (2, 12), generator=torch.Generator().manual_seed(1))}


def load(folder, task, **settings):
    spec = ModelSpec(source=f"hf:{folder}", **settings)
    return core.models.load(spec, task, torch.Generator().manual_seed(0))


def refusal(folder, task, **settings):
    with pytest.raises(SpecError) as caught:
        load(folder, task, **settings)
    return caught.value.problems[0]


@torch.no_grad()
@pytest.mark.parametrize("family", [*LANGUAGE, *IMAGES, "bert"])
def test_loaded_model_answers_as_the_saved_one(family, checkpoint, task_of):
    saved, folder = checkpoint(family)
    loaded = load(folder, task_of(family))
    batch = batch_of(family)
    torch.testing.assert_close(loaded.module(**batch).logits, saved(**batch).logits, rtol=1e-5, atol=1e-6)
    assert loaded.trained and not loaded.module.training
    assert not any(type(m).__name__ == "Conv1D" for m in loaded.module.modules())


@torch.no_grad()
@pytest.mark.parametrize("family", [*LANGUAGE, *IMAGES, "bert"])
def test_config_and_tensors_alone_make_an_equal_model(family, checkpoint, task_of):
    loaded = load(checkpoint(family)[1], task_of(family))
    config = json.loads(json.dumps(loaded.config))
    assert "hf:" not in json.dumps(config) and "/data/" not in json.dumps(config)
    with empty_weights():
        model = core.models.build(config)
    assert all(p.is_meta for p in model.parameters()) and not any(b.is_meta for b in model.buffers())
    assert tied_parameters(model) == tied_parameters(loaded.module)
    assign_weights(model, loaded.module.state_dict())
    batch = batch_of(family)
    assert torch.equal(model(**batch).logits, loaded.module(**batch).logits)
    assert tied_parameters(model) == tied_parameters(loaded.module)
    with torch.device("meta"):
        core.models.build(config)


def test_every_linear_of_gpt2_is_one_after_loading(checkpoint, language_task):
    module = load(checkpoint("gpt2")[1], language_task).module
    block = module.transformer.h[0]
    assert block.attn.c_attn.weight.shape == (96, 32) and block.mlp.c_fc.weight.shape == (128, 32)
    assert type(block.mlp.c_proj) is torch.nn.Linear


def test_running_text_gets_no_special_tokens_and_a_single_text_does(checkpoint, language_task, text_task):
    running = load(checkpoint("gpt2")[1], language_task).input_format
    single = load(checkpoint("bert")[1], text_task).input_format
    assert running.tokenizer.encode("abc") == [4, 5, 6]
    assert single.tokenizer.encode("abc") == [1, 4, 5, 6, 2]
    assert single.tokenizer.encode("abc" * 20)[-1] == 2 and len(single.tokenizer.encode("abc" * 20)) == 24
    assert (running.length, single.length) == (32, 24)
    assert single.tokenizer.pad_id == 0


def test_tokenizer_comes_back_from_its_saved_files(checkpoint, text_task, tmp_path):
    loaded = load(checkpoint("bert")[1], text_task)
    for name, content in loaded.tokenizer_files.items():
        (tmp_path / name).write_bytes(content)
    again = load_tokenizer(tmp_path)
    assert again.encode("a cab" * 9) == loaded.input_format.tokenizer.encode("a cab" * 9)


def test_image_format_follows_the_checkpoint(checkpoint, image_task):
    _, folder = checkpoint("vit")
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1], "image_std": [0.2], "size": 4}))
    input_format = load(folder, image_task).input_format
    assert (input_format.image_size, input_format.channels) == (8, 1)
    assert (input_format.mean, input_format.std) == ((0.1,), (0.2,))


def test_other_number_of_classes_needs_a_new_head(checkpoint, image_task):
    saved, folder = checkpoint("vit")
    task = dataclasses.replace(image_task, n_classes=7)
    problem = refusal(folder, task)
    assert problem.field == "model.source" and "10 classes" in problem.message and "new_head: true" in problem.remedy
    loaded = load(folder, task, new_head=True)
    assert not loaded.trained and loaded.module.classifier.weight.shape == (7, 32)
    assert torch.equal(loaded.module.classifier.weight, load(folder, task, new_head=True).module.classifier.weight)
    q = "vit.layers.0.attention.q_proj.weight"
    if q in dict(saved.named_parameters()):
        assert torch.equal(loaded.module.get_parameter(q), saved.get_parameter(q))


def test_new_head_is_new_even_where_the_classes_agree(checkpoint, image_task):
    saved, folder = checkpoint("vit")
    fresh = load(folder, image_task, new_head=True).module
    assert not torch.equal(fresh.classifier.weight, saved.classifier.weight)


def test_base_model_without_a_head_is_refused_until_a_new_one_is_asked_for(checkpoint, text_task):
    _, folder = checkpoint("bert", "BertForMaskedLM")
    problem = refusal(folder, text_task)
    assert "classifier" in problem.message and "new_head" in problem.remedy
    assert not load(folder, text_task, new_head=True).trained


def test_classifier_that_decodes_gets_a_padding_token(checkpoint, text_task):
    _, folder = checkpoint("gpt2", "GPT2LMHeadModel")
    module = load(folder, text_task, new_head=True).module
    assert module.config.pad_token_id == 0
    short = torch.tensor([[4, 5, 6]])
    padded = torch.tensor([[4, 5, 6, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    logits = module(input_ids=padded, attention_mask=mask).logits
    torch.testing.assert_close(logits, module(input_ids=short).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("family", "task"), [("llama", "image_task"), ("bert", "language_task"), ("vit", "text_task")])
def test_model_of_another_kind_is_refused(family, task, checkpoint, request):
    problem = refusal(checkpoint(family)[1], request.getfixturevalue(task))
    assert problem.field == "model.source" and CLASS_OF[family] in problem.message


CLASS_OF = {"llama": "LlamaForCausalLM", "bert": "BertForSequenceClassification", "vit": "ViTForImageClassification"}


def test_longer_than_the_model_takes_is_refused(checkpoint, language_task):
    problem = refusal(checkpoint("gpt2")[1], language_task, length=128)
    assert problem.field == "model.length" and "64" in problem.remedy


def test_bfloat16_is_loaded_and_built_as_such(checkpoint, language_task):
    loaded = load(checkpoint("llama")[1], language_task, dtype="bfloat16")
    assert {p.dtype for p in loaded.module.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in core.models.build(loaded.config).parameters()} == {torch.bfloat16}


def test_content_hash_follows_the_weights(checkpoint, language_task):
    saved, folder = checkpoint("llama")
    before = load(folder, language_task).content_hash
    assert load(folder, language_task).content_hash == before
    with torch.no_grad():
        saved.lm_head.weight[0, 0] += 1
    saved.save_pretrained(folder)
    assert load(folder, language_task).content_hash != before


def test_new_head_depends_on_the_generator_alone(checkpoint, image_task):
    _, folder = checkpoint("vit")
    torch.manual_seed(1)
    first = load(folder, image_task, new_head=True).module.classifier.weight
    torch.manual_seed(2)
    assert torch.equal(first, load(folder, image_task, new_head=True).module.classifier.weight)


def test_quantized_checkpoint_is_refused(checkpoint, language_task):
    _, folder = checkpoint("llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq"}}))
    assert "already quantized" in refusal(folder, language_task).message


def test_own_code_of_a_repository_is_never_run(checkpoint, language_task):
    _, folder = checkpoint("llama")
    (folder / "code.py").write_text("raise SystemExit")
    config = {"model_type": "own", "auto_map": {"AutoConfig": "code.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    assert "never run" in refusal(folder, language_task).message


def test_manifest_cannot_name_another_class(checkpoint, language_task):
    config = load(checkpoint("llama")[1], language_task).config
    with pytest.raises(ValueError, match="cannot be built"):
        core.models.build({**config, "auto_class": "AutoProcessor"})
    with pytest.raises(ValueError, match="cannot be built"):
        core.models.build({**config, "attention": "somebody/kernels"})
