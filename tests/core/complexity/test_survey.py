"""The measuring itself, on few and short lengths; what is asserted does not depend on the clock."""

import pytest
import torch
from torch import nn

from core.complexity import costs, subjects
from core.complexity.report import Parallel
from core.complexity.subjects import Candidate
from core.complexity.survey import survey
from core.families import Family
from core.techniques.catalogue import TECHNIQUES

GPT, ENCODER = Candidate(None, "builtin:gpt"), Candidate(None, "builtin:encoder")


@pytest.fixture(scope="module")
def found():
    return survey([64, 128, 256], rounds=1, only=["sliding_window"], say=lambda line: None)


def test_every_quantity_is_measured_at_every_length(found):
    full, classifier, window = found.architectures
    assert [full.name, classifier.name, window.name] == [
        "full attention",
        "full attention (bidirectional)",
        "sliding_window",
    ]
    for architecture in (full, window):
        assert all(value > 0 for _, values in architecture.costs for value in values)
    assert classifier.costs.decode_ms == classifier.costs.state_bytes == [None] * 3
    assert min(classifier.costs.train_ms) > 0


def test_state_is_what_the_caches_hold(found):
    full, _, window = found.architectures
    a_token = 2 * 2 * subjects.DIM * 4  # keys and values, two blocks, float32
    assert full.costs.state_bytes == [64 * a_token, 128 * a_token, 256 * a_token]
    assert window.costs.state_bytes == [64 * a_token] * 3
    assert found.fit(full, "state_bytes").value == pytest.approx(1)
    assert found.fit(window, "state_bytes").value == pytest.approx(0)


def test_memory_of_a_step_grows_with_the_length(found):
    for architecture in found.architectures:
        first, *_, last = architecture.costs.train_bytes
        assert last > 1.5 * first


def test_attention_trains_in_parallel(found):
    assert all(found.parallel(architecture) is Parallel.YES for architecture in found.architectures)
    assert found.conditions.rounds == 1 and found.conditions.hardware and found.conditions.dtype == "float32"


class Recurrence(nn.Module):
    """One token after another."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(257, 8)
        self.head = nn.Linear(8, 257)

    def forward(self, input_ids):
        state, states = torch.zeros(len(input_ids), 8), []
        for token in self.embedding(input_ids).unbind(1):
            state = torch.tanh(state + token)
            states.append(state)
        return self.head(torch.stack(states, dim=1))


def test_operations_of_a_recurrence_grow_with_the_length():
    few, more, most = (costs.operations(Recurrence(), length) for length in (10, 20, 30))
    assert most - more == more - few >= 10 * 4


def test_a_view_counts_with_all_that_it_keeps_alive():
    class State:
        def __init__(self):
            whole = torch.zeros(1000)
            self.views = [{"first": whole[:1]}, {"second": whole[5:7]}]
            self.own = torch.zeros(10, dtype=torch.int64)
            self.length = 3

    assert costs.state_bytes([State()]) == 4000 + 80


def test_a_step_leaves_no_gradients_and_hears_auxiliary_losses():
    model = subjects.build(GPT, 64)
    asked = []

    class Publisher(nn.Module):
        def aux_losses(self):
            asked.append(True)
            return {"balance": torch.zeros((), requires_grad=True)}

    model.publisher = Publisher()
    costs.train_step(model, costs.tokens(64))
    assert asked == [True] and all(parameter.grad is None for parameter in model.parameters())


def test_every_architecture_of_the_catalogue_is_measured_or_refused_with_a_reason():
    outcomes = {}
    for each in subjects.list_candidates(256):
        if isinstance(each, tuple):
            outcomes[each[0]] = each[1]
        else:
            outcomes[each.technique] = each
    expected = {name for name, known in TECHNIQUES.items() if known.family in (Family.ATTENTION, Family.ARCHITECTURE)}
    assert set(outcomes) == {None, *expected}
    assert all(outcome for outcome in outcomes.values())
    assert isinstance(outcomes["sliding_window"], Candidate)


def test_what_no_model_takes_is_refused_with_the_reason(monkeypatch):
    monkeypatch.setattr(TECHNIQUES["sliding_window"], "check", lambda self, subject: subjects._no_model("x"))
    monkeypatch.setattr(subjects, "list_steps", lambda: ["sliding_window"])
    name, reason = list(subjects.list_candidates(64))[-1]
    assert name == "sliding_window" and reason.count("is not available") == 2
    assert reason.startswith("builtin:gpt: ") and "builtin:encoder: " in reason


def test_descriptions_come_from_the_technique():
    described = Candidate("sliding_window", "builtin:gpt").described()
    assert described["settings"]["window"] == 64 and described["paper"].startswith("https://")
    assert ENCODER.name == "full attention (bidirectional)"


@pytest.mark.parametrize("name", ["linear_attention", "mamba", "retnet", "rwkv", "sliding_window"])
def test_a_bounded_state_keeps_nothing_of_the_length_alive(name):
    sizes = []
    for length in (128, 256):
        model = subjects.build(Candidate(name, "builtin:gpt"), length)
        sizes.append(costs.state_bytes(costs.filled_cache(model, length)))
    assert sizes[0] == sizes[1] < 128 * 2 * subjects.DIM * 4 * 2
