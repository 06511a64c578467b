"""Sentence encoders: equal to sentence-transformers, and what their folders may say."""

import json

import pytest
import torch
import transformers

from core.errors import SpecError
from core.models import build, huggingface
from core.models.huggingface import HuggingFaceSettings
from core.nn.sentence_encoder import pool
from core.tasks.data import EmbeddingData
from core.tasks.embeddings import EmbeddingTask
from tests.core.sentences import save_encoder

TEXTS = ["abc hag a", "cab" + " bad" * 20, "e"]  # the second is longer than the encoder's 16 tokens
# The first three numbers of each text's embedding by sentence-transformers 6.2.0, of `save_encoder(waves=True)`.
GOLDEN = {
    ("mean", True): [
        [0.083115, -0.059364, -0.16693],
        [0.184215, -0.133128, -0.090694],
        [0.085248, -0.16839, -0.10434],
    ],
    ("cls", False): [
        [0.548118, -0.713566, -0.406968],
        [0.967716, -0.668702, -0.128362],
        [0.457534, -1.148415, -0.377441],
    ],
    ("cls", True): [
        [0.096894, -0.126142, -0.071942],
        [0.17107, -0.118211, -0.022691],
        [0.080881, -0.203013, -0.066723],
    ],
    ("max", True): [
        [0.150983, 0.04468, -0.069102],
        [0.192674, 0.039743, 0.0604],
        [0.103734, -0.120549, -0.067163],
    ],
}


def task_of(length: int = 256) -> EmbeddingTask:
    return EmbeddingTask(
        "file:texts.txt", EmbeddingData({"test": TEXTS, "train": TEXTS, "validation": TEXTS}, length, "")
    )


def load(folder, task=None, **settings):
    task = task or task_of()
    made = HuggingFaceSettings.model_validate(settings)
    loaded = huggingface.load(f"hf:{folder.name}", made, task, torch.Generator())
    task.prepare(loaded.input_format)
    return loaded, task


@torch.no_grad()
def embedded(loaded, task) -> torch.Tensor:
    return loaded.module(**task.split("test").batch(torch.arange(len(TEXTS))))


@pytest.mark.parametrize(("pooling", "normalize"), GOLDEN)
def test_embeddings_are_those_of_sentence_transformers(pooling, normalize, data_folder):
    folder = save_encoder(data_folder / "encoder", pooling=pooling, normalize=normalize, waves=True)
    loaded, task = load(folder)
    found = embedded(loaded, task)
    assert found[:, :3].tolist() == [pytest.approx(row, abs=2e-5) for row in GOLDEN[pooling, normalize]]
    assert found.norm(dim=1).tolist() == pytest.approx([1, 1, 1], abs=1e-5) or not normalize


def test_newer_folders_name_their_pooling_and_leave_the_length_to_the_tokenizer(data_folder):
    folder = save_encoder(data_folder / "encoder", pooling="cls")
    expected = embedded(*load(folder))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"embedding_dimension": 32, "pooling_mode": "cls"}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"transformer_task": "feature-extraction"}))
    modules = json.loads((folder / "modules.json").read_text())
    for module in modules:
        module["type"] = module["type"].replace(".models.", ".sentence_transformer.modules.")
    (folder / "modules.json").write_text(json.dumps(modules))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "model_max_length": 16}))
    loaded, task = load(folder)
    assert loaded.input_format.length == 16
    assert torch.equal(embedded(loaded, task), expected)


def test_a_bert_alone_is_pooled_by_the_mean_and_says_so(data_folder):
    folder = save_encoder(data_folder / "encoder")
    (folder / "modules.json").unlink()
    loaded, _ = load(folder)
    assert loaded.config["sentence"] == {"pooling": "mean", "normalize": False}
    assert "no pooling is saved" in loaded.notes[0]
    chosen, _ = load(folder, pooling="max")
    assert chosen.config["sentence"]["pooling"] == "max" and not chosen.notes


def test_the_head_of_a_masked_language_model_is_left_out(data_folder):
    folder = save_encoder(data_folder / "encoder")
    expected = embedded(*load(folder))
    transformers.BertForMaskedLM.from_pretrained(folder).save_pretrained(folder)
    loaded, task = load(folder)
    assert not [name for name, _ in loaded.module.named_parameters() if "pooler" in name or "predictions" in name]
    assert torch.equal(embedded(loaded, task), expected)
    assert loaded.stored.bytes == 4 * sum(parameter.numel() for parameter in loaded.module.parameters())


def test_the_config_alone_makes_an_equal_encoder(data_folder):
    loaded, task = load(save_encoder(data_folder / "encoder", pooling="max"))
    bare = build(loaded.config)
    bare.load_state_dict(loaded.module.state_dict())
    batch = task.split("test").batch(torch.arange(3))
    with torch.no_grad():
        assert torch.equal(bare(**batch), loaded.module(**batch))


def test_the_length_is_the_least_that_is_said(data_folder):
    folder = save_encoder(data_folder / "encoder")
    assert load(folder)[0].input_format.length == 16
    assert load(folder, task_of(length=8))[0].input_format.length == 8
    assert load(folder, length=40)[0].input_format.length == 40
    with pytest.raises(SpecError, match="exceeds the model's maximum of 40 tokens"):
        load(folder, length=41)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (("Transformer", "Pooling", "Dense"), "is made of Transformer, 1_Pooling, 2_Dense"),
        (("Transformer", "Pooling"), "pools its tokens by pooling_mode_lasttoken"),
    ],
)
def test_other_modules_and_poolings_are_refused(modules, message, data_folder):
    folder = save_encoder(data_folder / "encoder", pooling="last")
    listed = [
        {"path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(SpecError, match=message):
        load(folder)


def test_padding_takes_no_part_in_the_mean_or_the_maximum():
    tokens = torch.tensor([[[1.0, -4.0], [3.0, -2.0], [100.0, 100.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert pool(tokens, mask, "mean").tolist() == [[2.0, -3.0]]
    assert pool(tokens, mask, "max").tolist() == [[3.0, -2.0]]
    assert pool(tokens, mask, "cls").tolist() == [[1.0, -4.0]]


def test_a_model_with_a_decoder_is_refused(data_folder):
    folder = save_encoder(data_folder / "encoder")
    transformers.T5Config(d_model=8, num_layers=1, num_heads=1).save_pretrained(folder)
    with pytest.raises(SpecError, match="is a t5, which has a decoder"):
        load(folder)
