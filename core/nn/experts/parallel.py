"""Expert parallelism: every process holds some of the experts, and tokens travel to them and back.

Papers: https://arxiv.org/abs/2006.16668 (GShard), https://arxiv.org/abs/2101.03961 (section 2.5). Two all-to-alls
a pass: of how many rows go where, and of the rows. Routers and everything else are replicated, and every process has
examples of its own. Nothing here starts processes: call it where torch.distributed is initialized.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_to_all_single

from core.nn.experts.feed_forward import ExpertFeedForward
from core.nn.experts.mixture import MixtureOfExperts
from core.nn.experts.segments import Segments


class ParallelExperts(nn.Module):
    """The experts [rank * local, (rank + 1) * local) of a mixture; rows of the others are sent to their processes."""

    def __init__(self, experts: ExpertFeedForward, group: dist.ProcessGroup):
        super().__init__()
        world = group.size()
        if experts.experts % world:
            raise ValueError(f"{experts.experts} experts cannot be divided evenly among {world} processes")
        self.group, self.world = group, world
        self.local = _local(experts, group.rank(), world)

    def forward(self, x: Tensor, segments: Segments) -> Tensor:
        """Rows [n, dim] sorted by expert, of all experts -> [n, dim]; every process has to call it."""
        sent = segments.counts.view(self.world, -1)  # [process, its experts]
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent.contiguous(), group=self.group)
        there, here = sent.sum(1).tolist(), received.sum(1).tolist()
        rows = _exchanged(x, there, here, self.group)  # sorted by process, then by expert
        expert = torch.arange(sent.shape[1], device=x.device).repeat(self.world)
        order = expert.repeat_interleave(received.flatten()).argsort(stable=True)
        out = self.local(rows.index_select(0, order), Segments(received.sum(0)))
        return _exchanged(out.index_select(0, order.argsort()), here, there, self.group)


def parallelize_(model: nn.Module, group: dist.ProcessGroup) -> None:
    """Leave each process its share of the experts of every mixture; importance and load are summed over them all."""
    for module in model.modules():
        if isinstance(module, MixtureOfExperts):
            assert isinstance(module.experts, ExpertFeedForward)
            module.experts = ParallelExperts(module.experts, group)
            module.processes = group


def average_gradients_(model: nn.Module, group: dist.ProcessGroup) -> None:
    """Gradients of the mean of all processes' losses: replicated ones are averaged, those of experts are complete.

    Experts have seen every process's rows, so that their gradients already are sums.
    """
    own = {id(p) for m in model.modules() if isinstance(m, ParallelExperts) for p in m.parameters()}
    for parameter in model.parameters():
        if parameter.grad is not None:
            if id(parameter) not in own:
                dist.all_reduce(parameter.grad, group=group)
            parameter.grad /= group.size()


def _local(experts: ExpertFeedForward, rank: int, world: int) -> ExpertFeedForward:
    """The rank's share, as experts of their own."""
    if len(experts.layers()) < len(list(experts.children())):
        raise ValueError("packed or factored experts cannot be distributed: parallelize them first")
    n_local = experts.experts // world
    made = ExpertFeedForward(n_local, experts.form)
    for name, layer in experts.layers().items():
        local = made.get_submodule(name)
        for key, parameter in layer.named_parameters():
            local.register_parameter(key, nn.Parameter(parameter.detach().chunk(world)[rank].clone()))
    return made.train(experts.training)


def _exchanged(x: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
    """Rows to their processes; gradients go the other way."""
    made: Tensor = all_to_all_single(x.new_empty(sum(received), x.shape[1]), x.contiguous(), received, sent, group)
    return made
