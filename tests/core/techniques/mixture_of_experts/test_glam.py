"""GLaM as a step: gated experts, and gated networks between them."""

from core.nn.ffn.gated import GatedFfn
from core.nn.ffn.mlp import Mlp
from tests.core.techniques.mixture_of_experts.subjects import applied, gpt, mixtures


def test_glam_makes_fresh_networks_between_gated_too():
    subject = applied("glam")
    form = mixtures(subject)["blocks.1.ffn"].form
    assert form.gated and form.activation == "gelu" and form.hidden == 32 and not form.bias
    assert type(subject.model.blocks[0].ffn).__name__ == "Geglu"
    assert subject.model.blocks[0].ffn.up.weight.numel() * 3 == gpt().model.blocks[0].ffn.up.weight.numel() * 2
    assert type(applied("glam", gpt("swiglu")).model.blocks[0].ffn) is GatedFfn


def test_nothing_dense_is_left_where_every_network_is_swapped():
    subject = applied("glam", every=1)
    assert len(mixtures(subject)) == 4
    assert not [m for m in subject.model.modules() if isinstance(m, (Mlp, GatedFfn))]
