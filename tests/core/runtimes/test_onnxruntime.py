import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification

from core.nn.attention.full import FullAttention
from core.nn.replacement import Replacement
from core.runtimes.base import Refused
from core.runtimes.onnxruntime import OnnxRuntime, exported
from core.tasks.base import Kind
from core.techniques.architecture.mamba import MambaStep
from core.techniques.attention.sliding_window import SlidingWindow
from core.techniques.mixture_of_experts.moe import Moe
from core.techniques.pruning.token_merging import TokenMerging
from tests.core.fakes import context
from tests.core.techniques.pruning.families import subject_of

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
CPU = torch.device("cpu")


class Image(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 16, 4, stride=4)
        self.head = nn.Linear(16, 3)

    def forward(self, pixel_values):
        x = self.patches(pixel_values).flatten(2).transpose(1, 2)
        return self.head(F.scaled_dot_product_attention(x, x, x).mean(1))


def test_the_exported_graph_gives_the_models_logits():
    model = Image()
    batch = {"pixel_values": torch.randn(2, 1, 8, 8), "labels": torch.zeros(2)}
    runner = exported(model, CPU, torch.float32, batch)
    other = {"pixel_values": torch.randn(2, 1, 8, 8)}
    torch.testing.assert_close(runner(other), model(other["pixel_values"]), atol=1e-5, rtol=1e-4)
    assert (runner.kernel, runner.decoder()) == ("dense", None)


@pytest.mark.parametrize(
    ("optimization", "level"), [("none", "ORT_DISABLE_ALL"), ("basic", "ORT_ENABLE_BASIC"), ("all", "ORT_ENABLE_ALL")]
)
def test_the_session_optimizes_as_far_as_it_is_told(optimization, level):
    batch = {"pixel_values": torch.randn(1, 1, 8, 8)}
    runner = OnnxRuntime(optimization=optimization).load(Image(), CPU, torch.float32, batch)
    assert runner._session.get_session_options().graph_optimization_level.name == level


def test_a_hugging_face_text_classifier_keeps_its_padding():
    config = BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=2
    )
    model = BertForSequenceClassification(config).eval()
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    batch = {"input_ids": torch.randint(30, (2, 4)), "attention_mask": mask}
    runner = exported(model, CPU, torch.float32, batch)
    other = {**batch, "attention_mask": mask.flip(0)}
    with torch.no_grad():
        torch.testing.assert_close(runner(other), model(**other).logits, atol=1e-5, rtol=1e-4)


def test_a_causal_attention_keeps_its_mask():
    class Text(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(30, 16)
            self.attention = FullAttention(16, 2, causal=True)

        def forward(self, input_ids):
            return self.attention(self.embedding(input_ids))

    model = Text().eval()
    runner = exported(model, CPU, torch.float32, {"input_ids": torch.randint(30, (2, 6))})
    other = {"input_ids": torch.randint(30, (2, 6))}
    with torch.no_grad():
        torch.testing.assert_close(runner(other), model(**other), atol=1e-5, rtol=1e-4)


def test_the_session_follows_the_number_of_threads():
    batch = {"pixel_values": torch.randn(1, 1, 8, 8)}
    runner = exported(Image(), CPU, torch.float32, batch)
    first = runner._session
    runner(batch)
    assert runner._session is first
    assert first.get_session_options().intra_op_num_threads == torch.get_num_threads()


class Int8(Replacement):
    def kernel(self, device, dtype):
        return "int8"

    def forward(self, pixel_values):
        return pixel_values


class Branching(nn.Linear):
    """What is traced is not what other inputs meet."""

    calls = 0

    def forward(self, pixel_values):
        self.calls += 1
        return super().forward(pixel_values) * self.calls


class ChosenByData(nn.Linear):
    """The graph keeps the branch of its example."""

    def forward(self, pixel_values):
        return super().forward(pixel_values) * (2 if pixel_values[0, 0] > pixel_values[0, -1] else 1)


class Failing(nn.Linear):
    """A conversion that goes wrong."""

    error: type[Exception]

    def forward(self, pixel_values):
        if torch.onnx.is_in_onnx_export():
            raise self.error("no such\nconversion")
        return super().forward(pixel_values)


class Unexportable(nn.Linear):
    def forward(self, pixel_values):
        return torch.linalg.eigvals(super().forward(pixel_values)).real


def test_what_the_graph_cannot_hold_is_refused_with_the_reason():
    batch = {"pixel_values": torch.randn(4, 4)}
    for model, dtype, reason in [
        (nn.Sequential(Int8()), torch.float32, r"packed layers \(int8\) have no ONNX form"),
        (nn.Linear(4, 4), torch.bfloat16, "float32 on a CPU, not for torch.bfloat16"),
        (Branching(4, 4), torch.float32, "outputs differ from the model's"),
        (ChosenByData(4, 4), torch.float32, "outputs differ from the model's"),
        (Unexportable(4, 4), torch.float32, "cannot be exported to ONNX"),
    ]:
        with pytest.raises(Refused, match=reason):
            exported(model, CPU, dtype, batch)


def test_a_worker_without_onnx_runtime_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Refused, match=r"not installed on this worker \(pip install"):
        exported(nn.Linear(4, 4), CPU, torch.float32, {"pixel_values": torch.randn(4, 4)})


@pytest.mark.parametrize("error", [AssertionError, AttributeError, IndexError, KeyError, ZeroDivisionError])
def test_whatever_a_conversion_raises_is_told_and_fails_no_run(error):
    model = Failing(4, 4)
    model.error = error
    with pytest.raises(Refused, match=r"cannot be exported to ONNX: '?no such"):
        exported(model, CPU, torch.float32, {"pixel_values": torch.randn(2, 4)})


@pytest.mark.parametrize("mixing", ["full", "sliding_window"])
def test_keys_that_queries_share_are_exported(mixing):
    subject = subject_of("builtin gpt", depth=1)
    if mixing == "sliding_window":
        SlidingWindow(window=64).apply(subject, context(subject))
    batch = {"input_ids": subject.task.batch(torch.arange(2))["input_ids"]}
    assert subject.model.blocks[0].attention.kv_heads == 2
    runner = exported(subject.model, CPU, torch.float32, batch)
    with torch.no_grad():
        torch.testing.assert_close(runner(batch), subject.model(**batch), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (MambaStep(), "its selective scan writes"),
        (MambaStep(replaces="attention"), "its selective scan writes"),
        (Moe(experts=4), "routing depends on the data"),
        (TokenMerging(merged=2), "needs a stable sort, which ONNX does not have"),
    ],
)
def test_architectures_without_a_graph_say_why_and_print_none(step, reason, capfd):
    family = "builtin vit" if isinstance(step, TokenMerging) else "builtin gpt"
    subject = subject_of(family, depth=2)
    subject.task.kind = Kind.IMAGE_CLASSIFICATION
    step.apply(subject, context(subject))
    with pytest.raises(Refused, match=f"cannot be exported to ONNX: .*{reason}"):
        exported(subject.model, CPU, torch.float32, subject.task.batch(torch.arange(2)))
    assert capfd.readouterr().out == ""
