"""Reversible blocks: the gradients of the plain computation, memory that does not grow with depth, generation."""

import pytest
import torch

from core.artifacts import artifact
from core.errors import SpecError
from core.nn.reversible import ReversibleStack
from core.techniques.architecture.reversible import Reversible
from core.techniques.architecture.sparse_ffn import SparseFfnTechnique
from core.techniques.architecture.sparse_loss import SparseLoss
from core.techniques.architecture.sparse_qkv import SparseQkv
from core.techniques.training.train import Train
from tests.core.fakes import context
from tests.core.techniques.architecture.small_gpt import subject_of


def reversible(*steps, **model):
    subject, loaded = subject_of(**model)
    for step in (*steps, Reversible()):
        step.check(subject)
        step.apply(subject, context(subject))
    return subject, loaded


def plain(stack: ReversibleStack, x: torch.Tensor) -> torch.Tensor:
    """Two streams as they are written down."""
    first, second = x, x
    for block in stack.children():
        first = first + block.attention(block.norm1(second))
        second = second + block.ffn(block.norm2(first))
    return (first + second) / 2


@pytest.mark.parametrize("sparse", [False, True])
def test_outputs_and_gradients_are_those_of_the_plain_computation(sparse):
    steps = [SparseFfnTechnique(block_size=16, quant_prob=0.5), SparseQkv()] if sparse else []
    subject, _ = reversible(*steps, depth=3)
    stack = subject.model.blocks.double().train()
    stack.get_submodule("2").norm2 = stack.get_submodule("0").norm1  # what is shared gets the sum
    x = torch.randn(2, 9, 32, dtype=torch.float64, requires_grad=True)
    inputs = [x, *stack.parameters()]
    upstream = torch.randn(2, 9, 32, dtype=torch.float64)
    results = []
    for run in (stack, lambda x: plain(stack, x)):
        torch.manual_seed(5)  # hard or soft, and the noise
        y = run(x)
        results.append((y, torch.autograd.grad(y, inputs, upstream), torch.rand(())))
    (mine, gradients, drawn), (theirs, expected, drawn_too) = results
    torch.testing.assert_close(mine, theirs)
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    assert drawn == drawn_too  # the second computation has drawn nothing that the training would miss


def kept_bytes(depth: int) -> int:
    """Bytes that the forward pass of a stack keeps for the backward pass, its parameters left out."""
    subject, _ = reversible(depth=depth)
    stack = subject.model.blocks.train()
    own = {p.untyped_storage().data_ptr() for p in stack.parameters()}
    kept = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept.append(tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        stack(torch.randn(2, 16, 32, requires_grad=True))
    return sum(kept)


def test_memory_does_not_grow_with_the_depth():
    assert kept_bytes(1) == kept_bytes(6) == 2 * 4 * 2 * 16 * 32  # two streams


def test_training_under_autocast_moves_every_parameter():
    subject, _ = reversible()
    before = {name: p.detach().clone() for name, p in subject.model.named_parameters()}
    Train(steps=4, batch_size=4, evaluations=0, precision="bfloat16").apply(subject, context(subject))
    still = {n for n, p in subject.model.named_parameters() if torch.equal(p, before[n])}
    assert all(name.endswith("attention.k.bias") for name in still)  # softmax does not see it


def test_terraformer_generates_the_same_with_and_without_a_cache_and_reloads(tmp_path):
    subject, loaded = reversible(SparseFfnTechnique(block_size=16), SparseQkv(), SparseLoss())
    Train(steps=3, batch_size=4, evaluations=0).apply(subject, context(subject))
    artifact.save(subject, tmp_path, loaded)
    tokens = torch.randint(0, 256, (2, 32))
    again = artifact.load_models(tmp_path)["main"]
    with torch.no_grad():
        assert torch.equal(again(tokens), subject.model(tokens))
        model = subject.model.double()
        cache = model.make_cache(32)
        parts = [model(part, cache=cache) for part in tokens.split([10] + [1] * 22, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), model(tokens), rtol=0, atol=1e-10)


def test_parameters_keep_their_names():
    plain_subject, _ = subject_of()
    names = {name for name, _ in plain_subject.model.named_parameters()}
    subject, _ = reversible()
    assert {name for name, _ in subject.model.named_parameters()} == names


def test_a_part_with_a_loss_of_its_own_is_refused():
    subject, _ = subject_of()
    subject.model.blocks[1].ffn.aux_losses = dict
    with pytest.raises(SpecError, match=r"model = 'blocks.1.ffn': adds a loss"):
        Reversible().check(subject)
    subject, _ = reversible()
    subject.model.blocks.get_submodule("0.ffn").aux_losses = dict  # put in by a later step
    with pytest.raises(RuntimeError, match=r"0.ffn adds a loss"):
        subject.model.train()(torch.randint(0, 256, (1, 4)))


def test_it_is_refused_twice():
    subject, _ = reversible()
    with pytest.raises(SpecError, match="model = 'blocks': is a ReversibleStack"):
        Reversible().check(subject)


def test_a_gradient_of_its_gradient_is_refused_not_wrong():
    subject, _ = reversible()
    x = torch.randn(2, 9, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(subject.model.blocks.train()(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
