"""Low-rank correction in whole models: outputs come nearer, bytes of the factors count, experts have their own."""

import pytest
import torch

from core.artifacts import artifact
from core.errors import SpecError
from core.integrity import PACKED
from core.measure import size
from core.measure.compute import count_weights
from core.models.anatomy import anatomy
from core.nn.corrected_linear import CorrectedLinear
from core.nn.quant_linear import QuantLinear
from core.techniques.quantization.low_rank_correction import LowRankCorrection
from core.techniques.quantization.rotation import Rotation
from core.techniques.quantization.rtn import Rtn
from tests.core.fakes import context
from tests.core.techniques.pruning.families import loaded, subject_of
from tests.core.techniques.pruning.test_slicegpt import answers

FAMILIES = ("builtin vit", "builtin gpt", "builtin encoder", "llama", "opt", "gpt2", "bert", "vit", "mixtral")


def error_of(step, family: str = "llama") -> float:
    subject = subject_of(family, depth=2)
    before = answers(subject)
    step.apply(subject, context(subject))
    return float((answers(subject) - before).norm() / before.norm())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_artifact_reloads_to_the_same(family, tmp_path):
    subject = subject_of(family, depth=2)
    LowRankCorrection(rank=4).apply(subject, context(subject))
    assert any(isinstance(module, CorrectedLinear) for module in subject.model.modules())
    after = answers(subject)
    artifact.save(subject, tmp_path, loaded(subject))
    again = artifact.load_subject(tmp_path, subject.task, torch.device("cpu"))
    assert torch.equal(answers(subject, again.model), after)
    for row in subject.details["layers"]:
        assert row["output_error"] < row["uncorrected_output_error"]


@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
def test_more_rank_loses_less(rounding):
    errors = [error_of(LowRankCorrection(bits=3, rank=rank, rounding=rounding)) for rank in (1, 8, 16, 32)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-2 * errors[0]  # factors of full rank, in 16 bits
    assert errors[1] < 0.8 * error_of(Rtn(bits=3))


def test_gptq_and_the_correction_add_up():
    nearest, gptq = (error_of(LowRankCorrection(bits=3, rank=4, rounding=how)) for how in ("nearest", "gptq"))
    assert gptq < nearest


def test_the_packed_layer_is_that_of_rounding_to_nearest():
    subject, plain = subject_of("builtin gpt", depth=1), subject_of("builtin gpt", depth=1)
    LowRankCorrection(bits=4, granularity="group", group_size=8, rank=3).apply(subject, context(subject))
    Rtn(bits=4, granularity="group", group_size=8).apply(plain, context(plain))
    corrected, expected = (each.model.blocks[0].attention.q for each in (subject, plain))
    assert isinstance(corrected.base, QuantLinear)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(corrected.base.state_dict()[name], tensor)
    x = torch.randn(5, 32)
    bias = expected.bias
    torch.testing.assert_close(corrected(x), x @ corrected.weight().T + bias, rtol=1e-4, atol=1e-5)


def test_bytes_and_parameters_of_the_factors_count(tmp_path):
    sizes, parameters = [], []
    for step in (Rtn(bits=4), LowRankCorrection(bits=4, rank=3)):
        subject = subject_of("builtin vit", depth=1)
        step.apply(subject, context(subject))
        artifact.save(subject, tmp_path / str(len(sizes)), loaded(subject))
        sizes.append(size.tensor_payload(tmp_path / str(len(sizes)) / PACKED))
        parameters.append(count_weights(subject.model).parameters)
    n_factors = 3 * (4 * (32 + 32) + 2 * (32 + 48))
    assert sizes[1] - sizes[0] == 2 * n_factors
    assert parameters[1] - parameters[0] == n_factors


def test_a_rotated_model_is_corrected_too():
    subject = subject_of("llama", depth=2)
    before = answers(subject)
    Rotation().apply(subject, context(subject))
    LowRankCorrection(bits=8, rank=4).apply(subject, context(subject))
    block = anatomy(subject.model).blocks[0]
    assert isinstance(subject.model.get_submodule(f"{block.down}.linear"), CorrectedLinear)
    assert (answers(subject) - before).norm() < 0.02 * before.norm()


def test_what_is_quantized_or_pruned_already_is_refused():
    subject = subject_of("builtin vit", depth=1)
    subject.constrain("blocks.0.ffn.up.weight", mask=torch.rand(48, 32) > 0.5)
    with pytest.raises(SpecError, match=r"'blocks.0.ffn.up': is pruned"):
        LowRankCorrection().check(subject)
    subject = subject_of("builtin vit", depth=1)
    LowRankCorrection(rank=2).apply(subject, context(subject))
    for step in (LowRankCorrection(), Rtn()):
        with pytest.raises(SpecError, match="is already a QuantLinear"):
            step.check(subject)
