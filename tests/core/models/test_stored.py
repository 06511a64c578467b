"""Which dtype a checkpoint is loaded in, and how many bytes of it there are."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from core import models
from core.errors import SpecError
from core.measure.size import tensor_payload
from core.models.stored import stored_weights
from core.spec.model import ModelSpec
from tests.core.models.test_huggingface import load, refusal

HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
FILE = "model.safetensors"


def dtypes(module) -> set[torch.dtype]:
    return {tensor.dtype for tensor in module.state_dict().values() if tensor.is_floating_point()}


def described(folder, task, **settings) -> str:
    return models.describe(ModelSpec(source=f"hf:{folder}", **settings), task).config["dtype"]


def saved_as(folder, dtype: torch.dtype, **shards: object) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    (folder / FILE).unlink()
    model.save_pretrained(folder, **shards)


def rewritten(folder, change) -> None:
    tensors = load_file(folder / FILE)
    save_file({name: change(name, tensor) for name, tensor in tensors.items()}, folder / FILE, {"format": "pt"})


@pytest.mark.parametrize("name", HALF)
def test_a_checkpoint_is_loaded_in_its_own_dtype(name, checkpoint, language_task):
    _, folder = checkpoint("llama")
    whole = tensor_payload(folder / FILE)
    saved_as(folder, HALF[name])
    loaded = load(folder, language_task)
    assert dtypes(loaded.module) == {HALF[name]}
    assert (loaded.stored.dtype, loaded.stored.bytes) == (name, whole // 2)
    assert loaded.config["dtype"] == described(folder, language_task) == name
    assert loaded.content_hash == load(folder, language_task, dtype=name).content_hash


def test_a_float32_checkpoint_has_the_hash_that_it_had(checkpoint, language_task):
    _, folder = checkpoint("llama")
    assert load(folder, language_task).content_hash == load(folder, language_task, dtype="float32").content_hash


def test_the_files_count_and_not_what_the_config_says(checkpoint, language_task):
    _, folder = checkpoint("llama")
    saved_as(folder, torch.bfloat16)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float32"}))
    assert dtypes(load(folder, language_task).module) == {torch.bfloat16}


def test_the_config_is_believed_until_the_weights_are_there(checkpoint, language_task, monkeypatch):
    _, folder = checkpoint("llama")
    monkeypatch.setattr("core.models.huggingface.check_weights", lambda source: None)
    saved_as(folder, torch.bfloat16)
    (folder / FILE).unlink()
    assert described(folder, language_task) == "bfloat16"


def test_shards_are_added_up(checkpoint, language_task):
    _, folder = checkpoint("llama")
    whole = tensor_payload(folder / FILE)
    saved_as(folder, torch.float16, max_shard_size="10KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    stored = load(folder, language_task).stored
    assert (stored.dtype, stored.bytes) == ("float16", whole // 2)


def test_of_a_mixed_checkpoint_most_weights_decide(checkpoint, language_task):
    _, folder = checkpoint("llama")
    rewritten(folder, lambda name, t: t if "norm" in name else t.bfloat16())
    loaded = load(folder, language_task)
    assert dtypes(loaded.module) == {torch.bfloat16}
    assert loaded.stored.bytes == tensor_payload(folder / FILE)


def test_another_dtype_is_counted_against_the_file(checkpoint, language_task):
    _, folder = checkpoint("llama")
    saved_as(folder, torch.bfloat16)
    loaded = load(folder, language_task, dtype="float32")
    assert dtypes(loaded.module) == {torch.float32}
    assert (loaded.stored.dtype, loaded.stored.bytes) == ("bfloat16", tensor_payload(folder / FILE))


def test_what_the_model_leaves_out_does_not_count(checkpoint, language_task):
    _, folder = checkpoint("llama")
    whole = tensor_payload(folder / FILE)
    tensors = {**load_file(folder / FILE), "pretraining_head.weight": torch.zeros(1000)}
    save_file(tensors, folder / FILE, {"format": "pt"})
    assert load(folder, language_task).stored.bytes == whole


def test_narrow_floats_are_refused_before_anything_is_loaded(checkpoint, language_task):
    _, folder = checkpoint("llama")
    rewritten(folder, lambda name, t: t.to(torch.float8_e4m3fn) if t.ndim > 1 else t)
    problem = refusal(folder, language_task)
    assert "F8_E4M3" in problem.message and "bfloat16" in problem.remedy


def test_a_damaged_file_is_refused_in_words(checkpoint, language_task):
    _, folder = checkpoint("llama")
    content = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(content[: len(content) // 2])
    assert "is damaged: model.safetensors is incomplete" in refusal(folder, language_task).message
    with pytest.raises(SpecError, match="damaged"):
        stored_weights(f"hf:{folder}", folder)
