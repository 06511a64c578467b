"""Experts shared out among two processes give what one process gives: outputs, losses and gradients."""

import socket
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing, nn

from core.nn.experts.low_rank import LowRankExpertLinear
from core.nn.experts.noisy_top_k import NoisyTopKExperts
from core.nn.experts.parallel import ParallelExperts, average_gradients_, parallelize_
from core.nn.experts.switch import SwitchExperts
from core.nn.experts.top2 import Top2Experts

FORM = {"dim": 6, "hidden": 10, "activation": "gelu", "gated": False, "bias": True}
LIMITS = {"capacity_factor": 0.7, "eval_capacity_factor": None, "balance_weight": 0.3, "group": "sequence"}


def mixtures():
    made = nn.ModuleList(
        [SwitchExperts(4, **LIMITS, **FORM), Top2Experts(4, **LIMITS, **FORM), SameNoise(4, choices=2, **FORM)]
    ).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.7, generator=generator)
        made[0].router[:2] += 1.0  # the processes have different numbers of rows to work on
    return made.train()


class SameNoise(NoisyTopKExperts):
    """Its noise follows from the token, so that processes draw what one would."""

    def _noise(self, clean):
        return torch.sin(100 * clean.detach())


def results(models, x):
    """Outputs, the loss of these examples, and what it leaves in the gradients."""
    outputs = [mixture(x) for mixture in models]
    loss = sum(out.square().mean() for out in outputs)
    loss = loss + sum(term for mixture in models for term in mixture.aux_losses().values())
    loss.backward()
    return [out.detach() for out in outputs], loss.detach()


def examples():
    return torch.randn(4, 24, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def work(rank, port, results_queue):
    store = dist.TCPStore("127.0.0.1", port, 2, rank == 0, timeout=timedelta(seconds=60))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    torch.set_num_threads(1)
    models = mixtures()
    parallelize_(models, dist.group.WORLD)
    outputs, loss = results(models, examples().chunk(2)[rank])
    average_gradients_(models, dist.group.WORLD)
    gradients = {name: p.grad for name, p in models.named_parameters()}
    results_queue.put((rank, *(_plain(part) for part in (outputs, loss, gradients))))
    dist.destroy_process_group()


def _plain(part):
    """Without shared memory, which would end with its process."""
    if isinstance(part, dict):
        return {name: value.numpy().copy() for name, value in part.items()}
    return [value.numpy().copy() for value in part] if isinstance(part, list) else float(part)


@pytest.fixture(scope="module")
def both():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawned = multiprocessing.get_context("spawn")
    answers = spawned.Queue()
    processes = [spawned.Process(target=work, args=(rank, port, answers)) for rank in range(2)]
    for process in processes:
        process.start()
    found = sorted(answers.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(30)
    return found


def test_two_processes_give_what_one_gives(both):
    models = mixtures()
    outputs, loss = results(models, examples())
    for index, out in enumerate(outputs):
        there = torch.cat([torch.from_numpy(part[1][index]) for part in both])
        torch.testing.assert_close(there, out)
    assert sum(part[2] for part in both) / 2 == pytest.approx(float(loss))
    for name, parameter in models.named_parameters():
        if ".experts." in name:
            local = name.replace(".experts.", ".experts.local.")
            gradient = torch.cat([torch.from_numpy(part[3][local]) for part in both])
        else:
            gradient = torch.from_numpy(both[0][3][name])
            torch.testing.assert_close(gradient, torch.from_numpy(both[1][3][name]))
        torch.testing.assert_close(gradient, parameter.grad, msg=lambda m, n=name: f"{n}: {m}")


class FirstOf:
    """A group of so many processes."""

    def __init__(self, n_processes):
        self.n_processes = n_processes

    def size(self):
        return self.n_processes

    def rank(self):
        return 0


def test_experts_that_cannot_be_shared_out_are_refused():
    with pytest.raises(ValueError, match="4 experts cannot be divided evenly among 3 processes"):
        ParallelExperts(mixtures()[0].experts, FirstOf(3))
    factored = mixtures()[0].experts
    factored.up = LowRankExpertLinear.of(factored.up, 2)
    with pytest.raises(ValueError, match="packed or factored experts cannot be distributed"):
        ParallelExperts(factored, FirstOf(2))
