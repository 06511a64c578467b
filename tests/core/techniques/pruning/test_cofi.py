"""CoFi: the model that is cut out computes what the masked one did; masks come to their target; idle parts go."""

import copy

import pytest
import torch
from pydantic import ValidationError

from core.algorithms.structured.stream import stream_units
from core.engine.recording import MemoryRecord
from core.errors import Interrupted, SpecError
from core.measure.compute import count
from core.models.anatomy import anatomy, heads_of
from core.runtimes.decode import decoder_of
from core.techniques.pruning.cofi import Cofi
from core.training.loop import Training
from tests.core.algorithms.structured.families import TRANSFORMERS, answers, subject_of
from tests.core.fakes import StopAt, context
from tests.core.training.test_loop import plan


def begun(family, where=None, **settings):
    """A subject whose masks are learned from now on."""
    subject = subject_of(family)
    teacher = copy.deepcopy(subject.model)
    where = where or context(subject)
    where.resolve = lambda reference: copy.deepcopy(teacher)
    method = Cofi(teacher="stage:0", start=0.0, **settings)
    method.check(subject)
    method.begin(subject, where)
    return subject, method


def scatter_(method, *, dead=()):
    """Masks of all values, some heads, units and channels dropped, and the named layers."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for own in method._alphas.parameters():
            own.copy_(4 * torch.randn(own.shape, generator=generator) + 1)
        method._alphas.attention_layers.fill_(1.5)
        method._alphas.feed_layers.fill_(2.5)
        for kind, index in dead:
            getattr(method._alphas, kind)[index] = -4
    method._masks = method._alphas.settled(method.round_to)


KEPT = {"hf opt": 1, "hf llama": 2, "hf bert": 1, "hf vit": 1}  # heads that give nothing
DEAD = {"nothing": (), "layers": (("attention_layers", 0), ("feed_layers", 1))}


@pytest.mark.parametrize("family", TRANSFORMERS)
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("dead", DEAD)
def test_what_is_cut_out_computes_what_the_masked_model_did(family, residual, dead):
    subject, method = begun(family, residual=residual, round_to=4)
    dense, before = answers(subject), count(subject.model, subject.task.batch(torch.arange(1)))
    scatter_(method, dead=DEAD[dead])
    expected = answers(subject)
    method.end(subject)
    scale = float(expected.abs().max())
    assert float((answers(subject) - expected).abs().max()) < 1e-5 * scale
    assert float((dense - expected).abs().max()) > 1e-2 * scale
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in subject.model.modules())
    after = count(subject.model, subject.task.batch(torch.arange(1)))
    assert after.parameters < 0.9 * before.parameters and after.macs < 0.9 * before.macs
    rows = subject.details["layers"]
    assert [row["kind"] for row in rows] == ["heads", "units"] * 2 + ["width"] * residual
    assert all(row["after"] % 4 == 0 for row in rows if row["kind"] != "heads")
    if dead == "layers":
        assert (rows[0]["after"], rows[3]["after"]) == (KEPT.get(family, 0), 0)
    if residual:
        assert stream_units(subject.model).count == rows[-1]["after"] < 32


@pytest.mark.parametrize("family", ["gpt", "hf llama", "hf opt"])
def test_a_decoder_without_some_of_its_attention_decodes_with_kept_keys(family):
    subject, method = begun(family)
    scatter_(method, dead=DEAD["layers"])
    method.end(subject)
    decoder = decoder_of(subject.model)
    prompt = subject.task.batch(torch.arange(3))["input_ids"][:, :6]
    with torch.inference_mode():
        decoder.prefill({"input_ids": prompt}, 3)
        for _ in range(3):
            output = subject.model(prompt)
            logits = output if isinstance(output, torch.Tensor) else output.logits
            assert torch.equal(logits[:, -1:].argmax(-1), decoder.token)
            prompt = torch.cat((prompt, decoder.token), dim=1)
            decoder.step()


def test_a_masked_model_that_masks_nothing_is_the_model():
    for family in TRANSFORMERS:
        subject = subject_of(family)
        expected = answers(subject)
        subject, _ = begun(family)
        torch.testing.assert_close(answers(subject), expected)


SETTINGS = {"sparsity": 0.5, "mask_learning_rate": 0.1, "start": 0.1, "rise": 0.2, "round_to": 1}


def trained(steps=60, where=None, **settings):
    subject = subject_of("vit")
    teacher = copy.deepcopy(subject.model)
    record = MemoryRecord()
    where = where or context(subject, record)
    where.resolve = lambda reference: copy.deepcopy(teacher)
    method = Cofi(teacher="stage:0", **(SETTINGS | settings))
    training = Training(subject, where, plan(steps=steps, batch_size=12, learning_rate=1e-3), [method])
    training.load()
    training.run()
    return subject, where.record


def test_masks_come_to_the_target():
    subject, record = trained(steps=400, residual=False, layer_weight=0)
    curves = {name.partition("/")[2]: [point[1] for point in points] for name, points in record.curves.items()}
    assert curves["target sparsity"][0] == 0 and curves["target sparsity"][-1] == pytest.approx(0.5)
    assert curves["expected sparsity"][-1] == pytest.approx(0.5, abs=0.03)
    known = anatomy(subject.model)
    names = [name for block in known.blocks for name in block.linears]
    left = sum(subject.model.get_parameter(f"{name}.weight").numel() for name in names)
    assert left / (2 * (4 * 32 * 32 + 2 * 32 * 48)) == pytest.approx(
        0.5, abs=0.15
    )  # masks of whole layers count in parts until they settle
    assert curves["learning rate"][-1] < 1e-4  # of the weights; the masks' own stays
    assert not record.events


def test_a_target_that_was_not_reached_is_said():
    _, record = trained(steps=10, mask_learning_rate=1e-3)
    ((level, message),) = record.events
    assert level == "warning" and "not 50%" in message and "mask_learning_rate" in message


def test_heads_without_output_go_before_others():
    def idle(subject):
        with torch.no_grad():
            for index, block in enumerate(subject.model.blocks):
                block.attention.o.weight[:, 8 * index : 8 * index + 8] = 0

    subject = subject_of("vit")
    idle(subject)
    teacher, where = copy.deepcopy(subject.model), context(subject)
    where.resolve = lambda reference: copy.deepcopy(teacher)
    method = Cofi(teacher="stage:0", residual=False, **(SETTINGS | {"sparsity": 0.4}))
    Training(subject, where, plan(steps=120, batch_size=12, learning_rate=1e-6), [method]).run()
    alphas = [own.detach() for own in method._alphas.heads]
    for index, own in enumerate(alphas):
        assert int(own.argmin()) == index


def test_a_training_that_was_interrupted_ends_as_one_that_was_not(tmp_path):
    whole, _ = trained(steps=20)
    place = {"checkpoint": tmp_path / "state"}
    with pytest.raises(Interrupted):
        trained(steps=20, where=context(subject_of("vit"), StopAt(12), **place))
    resumed, _ = trained(steps=20, where=context(subject_of("vit"), **place))
    state = resumed.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in whole.model.state_dict().items())


def test_heads_of_a_group_go_together():
    subject, method = begun("gpt")
    with torch.no_grad():
        method._alphas.heads[0][0] = -4
    method.end(subject)
    known = anatomy(subject.model)
    assert [heads_of(subject.model, known, block) for block in known.blocks] == [(2, 1), (4, 2)]


def test_what_cannot_be_done_is_refused():
    with pytest.raises(SpecError, match=r"rise = 0.5: ends after the training \(start 0.6\)"):
        Cofi(teacher="stage:0", start=0.6, rise=0.5).check(subject_of("vit"))
    with pytest.raises(SpecError, match="blocks' parts are not known"):
        Cofi(teacher="stage:0").check(subject_of("resnet"))
    with pytest.raises(ValidationError, match="is not a model reference"):
        Cofi(teacher="bert")
    subject = subject_of("vit")
    where = context(subject)
    where.resolve = lambda reference: torch.nn.Linear(4, 4)
    with pytest.raises(SpecError, match="teacher = 'stage:0': is a Linear, whose blocks are not known"):
        Cofi(teacher="stage:0").begin(subject, where)


def test_label_is_the_target():
    assert Cofi(teacher="run:7", sparsity=0.9).label() == "90%"
    assert Cofi(teacher="run:7", residual=False).label() == "60% blocks only"
