"""Experts in one pass give what they give layer by layer, and the memory of gradients is used again only when free."""

import copy

import pytest
import torch

from core.nn.experts.feed_forward import ExpertFeedForward, Form
from core.nn.experts.segments import Segments
from core.nn.experts.spare import Spare

COUNTS = torch.tensor([3, 0, 4, 1, 0])
FORMS = [Form(6, 10, "gelu", gated=False, bias=True), Form(6, 10, "silu", gated=True, bias=False)]


def drawn(form):
    torch.manual_seed(0)
    experts = ExpertFeedForward(5, form).double()
    for parameter in experts.parameters():
        parameter.data.normal_()
    return experts, torch.randn(8, 6, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("form", [*FORMS, Form(6, 10, "gelu", gated=True, bias=True)])
def test_one_pass_is_layer_by_layer(form, monkeypatch):
    experts, x = drawn(form)
    weights = torch.randn(8, 6, dtype=torch.float64)
    inputs = [x, *experts.parameters()]
    made = experts(x, Segments(COUNTS))
    gradients = torch.autograd.grad((made * weights).sum(), inputs)
    monkeypatch.setattr(ExpertFeedForward, "_runs_fused", lambda *_: False)
    expected = experts(x, Segments(COUNTS))
    torch.testing.assert_close(made, expected)
    for found, right in zip(gradients, torch.autograd.grad((expected * weights).sum(), inputs), strict=True):
        torch.testing.assert_close(found, right)


@pytest.mark.parametrize("form", FORMS)
def test_a_second_backward_pass_gives_the_same_gradients(form):
    experts, x = drawn(form)
    inputs = [x, *experts.parameters()]
    loss = experts(x, Segments(COUNTS)).square().sum()
    first = [gradient.clone() for gradient in torch.autograd.grad(loss, inputs, retain_graph=True)]
    for found, right in zip(torch.autograd.grad(loss, inputs), first, strict=True):
        assert torch.equal(found, right)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, inputs)  # what was kept is gone


def test_nothing_is_kept_where_nothing_wants_a_gradient():
    experts, x = drawn(FORMS[0])
    with torch.no_grad():
        out = experts(x, Segments(COUNTS))
    assert out.grad_fn is None


def test_no_rows_at_all():
    experts, _ = drawn(FORMS[0])
    out = experts(torch.zeros(0, 6, dtype=torch.float64), Segments(torch.zeros(5, dtype=torch.int64)))
    out.sum().backward()
    assert out.shape == (0, 6) and not experts.up.weight.grad.any()


def test_gradients_are_added_up_and_older_ones_left_alone():
    experts, x = drawn(FORMS[0])

    def backward():
        experts(x, Segments(COUNTS)).square().sum().backward()
        return experts.up.weight.grad

    first = backward()
    once = first.clone()
    torch.testing.assert_close(backward(), 2 * once)  # into the same .grad
    experts.zero_grad(set_to_none=True)
    assert torch.equal(first, 2 * once)  # someone still looks at it
    torch.testing.assert_close(backward(), once)
    assert torch.equal(first, 2 * once)


def test_memory_is_used_again_when_the_gradient_is_dropped():
    experts, x = drawn(FORMS[0])
    places = []
    for _ in range(3):
        experts.zero_grad(set_to_none=True)
        experts(x, Segments(COUNTS)).sum().backward()
        places.append(experts.up.weight.grad.data_ptr())
    assert len(set(places)) == 1


def test_memory_that_a_view_still_has_is_not_used_again():
    spare, weight = Spare(), torch.zeros(4, 3)
    view = spare.empty_like(weight)[1:].fill_(7.0)
    again = spare.empty_like(weight).fill_(1.0)
    assert (view == 7).all() and again.data_ptr() != view.data_ptr()


def test_a_copy_has_no_memory_of_its_original():
    spare, weight = Spare(), torch.zeros(4, 3)
    place = spare.empty_like(weight).data_ptr()
    other = copy.deepcopy(spare).empty_like(weight)
    assert spare.empty_like(weight).data_ptr() == place != other.data_ptr()
