"""A step that was killed goes on at the first block that it has not finished, and ends as if it never was."""

import pytest
import torch

from core.engine.recording import MemoryRecord
from core.errors import Interrupted
from core.subject import Subject
from core.tasks.base import logits_of
from core.techniques.pruning.sparsegpt import Sparsegpt
from core.techniques.quantization.adaround import Adaround
from core.techniques.quantization.autoround import Autoround
from core.techniques.quantization.gptq import Gptq
from tests.core.fakes import context
from tests.core.techniques.pruning.families import subject_of

STEPS = {
    "adaround": Adaround(bits=3, iterations=6, calibration_examples=8),
    "adaround layer": Adaround(bits=3, iterations=6, calibration_examples=8, unit="layer", include_head=True),
    "autoround": Autoround(bits=3, iterations=6, calibration_examples=8),
    "gptq": Gptq(bits=3, calibration_examples=8, granularity="channel"),
    "sparsegpt": Sparsegpt(calibration_examples=8),
    "sparsegpt bits": Sparsegpt(calibration_examples=8, bits=4),
}


class Killed(MemoryRecord):
    """Stops a run when the walk reaches a block."""

    def __init__(self, block: str):
        super().__init__()
        self.block = block

    def progress(self, fraction: float, text: str) -> None:
        if text == self.block:
            raise Interrupted
        super().progress(fraction, text)


def made(family: str) -> Subject:
    subject = subject_of(family, depth=3)
    layer = next(n for n, m in subject.model.named_modules() if n.endswith(("ffn.up", "up_proj")))
    shape = subject.model.get_parameter(f"{layer}.weight").shape
    subject.constrain(f"{layer}.weight", mask=torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.2)
    return subject


def same(first: Subject, second: Subject) -> None:
    states = [subject.model.state_dict() for subject in (first, second)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert [type(m) for m in first.model.modules()] == [type(m) for m in second.model.modules()]
    assert first.details["layers"] == second.details["layers"]
    assert first.covered == second.covered
    assert first.constraints.keys() == second.constraints.keys()
    assert all(torch.equal(c.tensor, second.constraints[fqn].tensor) for fqn, c in first.constraints.items())
    batch = first.task.batch(torch.arange(4))
    with torch.inference_mode():
        assert torch.equal(logits_of(first.model, batch), logits_of(second.model, batch))


@pytest.mark.parametrize("family", ["builtin gpt", "llama"])
@pytest.mark.parametrize("name", STEPS)
def test_what_is_taken_up_ends_as_what_was_never_killed(name, family, tmp_path):
    step, whole, broken, resumed = STEPS[name], made(family), made(family), made(family)
    if family == "builtin gpt" and name == "adaround layer":
        step = step.model_copy(update={"include_head": False})  # its head is the embedding
    record, again = MemoryRecord(), MemoryRecord()
    step.apply(whole, context(whole, record))
    last = "blocks.2" if family == "builtin gpt" else "model.layers.2"
    with pytest.raises(Interrupted):
        step.apply(broken, context(broken, Killed(last), checkpoint=tmp_path / "key.safetensors"))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["key.block0.safetensors", "key.block1.safetensors"]
    step.apply(resumed, context(resumed, again, checkpoint=tmp_path / "key.safetensors"))
    same(resumed, whole)
    assert sum("taken up" in message for _, message in again.events) == 2
    for curve, points in again.curves.items():
        assert points == record.curves[curve][-len(points) :]


def test_another_key_takes_nothing_up(tmp_path):
    step, record = STEPS["autoround"], MemoryRecord()
    for name in ("one", "two"):
        subject = made("builtin gpt")
        step.apply(subject, context(subject, record, checkpoint=tmp_path / f"{name}.safetensors"))
    assert not any("taken up" in message for _, message in record.events)


def test_blocks_after_a_missing_one_are_done_again(tmp_path):
    step, record, path = STEPS["autoround"], MemoryRecord(), tmp_path / "key.safetensors"
    whole, again = made("builtin gpt"), made("builtin gpt")
    step.apply(whole, context(whole, checkpoint=path))
    (tmp_path / "key.block1.safetensors").unlink()
    step.apply(again, context(again, record, checkpoint=path))
    assert [message for _, message in record.events] == ["blocks.0: taken up from an earlier attempt"]
    same(again, whole)
