"""Number formats give the bytes that other libraries give, and take the bits that they promise.

The golden bytes are those of compressed-tensors 0.20.1 (FP8, NVFP4, MX), gguf 0.19 (MXFP4) and bitsandbytes 0.50 (NF4)
for the same weights.
"""

import zlib
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.algorithms.number_formats import FormatScheme
from core.algorithms.rounding import Rounding
from core.algorithms.second_order import exact_error, factorize, solve
from core.models.meta import assign_weights, empty_weights
from core.nn.format_linear import FormatLinear
from core.nn.formats.catalogue import FORMATS
from core.techniques.quantization.rtn import Rtn

BITS = {  # with scales: of a weight of 1024 inputs, float16 scales where the format leaves them open
    "fp8_e4m3": 8 + 16 / 1024,
    "fp8_e5m2": 8 + 16 / 1024,
    "mxfp8": 8.25,
    "mxfp4": 4.25,
    "nvfp4": 4.5,
    "nf4": 4.5,
    "nf4_double": 4 + 8 / 64 + 32 / (64 * 256),
    "ternary": 1.6 + 16 / 1024,
    "binary": 1 + 16 / 1024,
}
FP8_ROWS = (
    "fe5dfd69fb6ffa72f875f678f379f07beb7ce37d00fd63fc6bfb70f973f876f5",
    "78f27aef7be97ddd7e59fd68fb6dfa72f974f777f479f17aec7ce57dd1fe61fc",
)
FP8_TENSOR_ROW = "f655f561f367f26af06dee70eb71e873e374db7500f55bf463f368f16bf06eed"
NVFP4_ROWS = "1f2f3e4e5e5d6c6c7b79f0f1e3e4e5d5c6b6a697072f3e4e5e5d6d6c7b79f8f1"
MXFP4_ROWS = (
    "1f2f3e4e5e6d6c6c7a79f0f1e2e4e4d5c6b6a697072f3f4e5e5d6d6c7b7af8f1"
    "e2e3d4d5c5b6a696071f2e4e4e5d5c6c6b7af8f1e2e3d4d5c5b6a696071f2e3e"
)
MXFP8_ROWS = (
    "fc5cfb68fa6df971f774f476f278ef7aea7be27c00fc62fb6afa6ff872f674f477f179ed7ae87bdc7c58fc66fa6cf970f873f576f278f079"
    "eb7ae47cd0fc60fb68f96df771f573f375f177ed79e87ade7b4efb63f96af86ef671f474f276ef78eb79e57ad6fb5bfa66f96cf870f672f3"
    "75f177ee79e97ae17b00fb61fa69f96e"
)
GGUF_ROWS = (
    "7daf719f720ef31ef42ee54de54cd65cd67de65cd65bd66ac769b7709f720ff31ef4"
    "7e720ef31ee42de54de54cd65bc65ac6697e5bc66ab760af619f720ef31ee42de53d"
)
NF4_START = "08091a1b2c2d3e4e5e6f708091b1c2c2d3e4e5f6f8091a1b1c2d3d4e5e6f7080"


def sample(rows: int, columns: int) -> Tensor:
    """Weights that repeat with the period 101 and grow from row to row; every 32nd part is exact."""
    i = torch.arange(rows * columns)
    return (((i * 53) % 101 - 50).float() / 32 * (1 + i // columns)).view(rows, columns)


def linear_of(weight: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data = weight
    return linear


def packed(weight: Tensor, format: str, sharing: str = "channel") -> FormatLinear:
    return FormatScheme(format, sharing).quantize(linear_of(weight))


def rounded(weight: Tensor, format: str, sharing: str):
    """Codes and scales with scales in float32, as the other libraries keep them."""
    scheme = FormatScheme(format, sharing)
    columns = 128 if sharing == "block" else None
    return scheme.round(weight, partial(scheme.fit, largest=weight.abs().amax()), columns)


def hexadecimal(codes: Tensor) -> str:
    return bytes(codes.to(torch.uint8).flatten().tolist()).hex()


def test_fp8_has_the_bytes_of_compressed_tensors():
    weight = sample(2, 32)
    by_channel = rounded(weight, "fp8_e4m3", "channel")
    assert by_channel.scales.flatten().tolist() == [0.0034877231810241938, 0.0069754463620483875]
    assert hexadecimal(by_channel.codes) == "".join(FP8_ROWS)
    by_tensor = rounded(weight, "fp8_e4m3", "tensor")
    assert by_tensor.scales.flatten().tolist() == [0.0069754463620483875] * 2
    assert hexadecimal(by_tensor.codes) == FP8_TENSOR_ROW + FP8_ROWS[1]
    by_block = rounded(sample(200, 130) / 7, "fp8_e4m3", "block")
    scales = [[0.06377550959587097, 0.05807557329535484], [0.09964923560619354, 0.09616150707006454]]
    assert by_block.scales[::128].tolist() == scales
    assert zlib.crc32(bytes.fromhex(hexadecimal(by_block.codes))) == 885366733


def test_nvfp4_has_the_bytes_of_compressed_tensors():
    layer = packed(sample(2, 32), "nvfp4")
    assert layer.tensor_scale.item() == pytest.approx(1 / 860.1599731445312, rel=1e-6)
    assert hexadecimal(layer.scales) == "76757e7e"
    assert hexadecimal(layer.codes) == NVFP4_ROWS
    expected = [-1.5625001192092896, 0.1302083432674408, -1.5625001192092896, 0.2604166865348816]
    assert layer.weight()[0, :4].tolist() == pytest.approx(expected, rel=1e-6)


def test_mx_formats_have_the_bytes_of_compressed_tensors():
    weight = sample(2, 64) * torch.tensor([[1.0], [0.9]])
    four, eight = packed(weight, "mxfp4"), packed(weight, "mxfp8")
    assert four.scales.tolist() == [[125, 125], [126, 126]]  # 0.25 and 0.5
    assert hexadecimal(four.codes) == MXFP4_ROWS
    assert eight.scales.tolist() == [[119, 119], [120, 120]]  # 2**-8 and 2**-7
    assert hexadecimal(eight.codes) == MXFP8_ROWS


def test_mxfp4_has_the_values_of_gguf():
    weight = sample(2, 64) * torch.tensor([[1.0], [0.9]])
    layer = packed(weight, "mxfp4")
    raw = torch.tensor(list(bytes.fromhex(GGUF_ROWS))).view(2, 2, 17)
    assert torch.equal(raw[:, :, 0], layer.scales.long())
    codes = torch.cat([raw[:, :, 1:] & 15, raw[:, :, 1:] >> 4], dim=2).flatten(1)
    values = FORMATS["mxfp4"].element.decode(codes.byte()) * torch.tensor([[0.25], [0.5]])
    differs = layer.weight() != values  # only ties that we round up: they go to the smaller magnitude there
    assert (weight[differs] / 0.25).tolist() == [3.5, -3.5, -0.75]


def test_an_mx_scale_is_rounded_down_to_a_power_of_two():
    weight = torch.zeros(4, 32)
    weight[:, 0] = torch.tensor([7.9, 8.0, 2.0**-130, 0.0])
    layer = packed(weight, "mxfp4")
    assert layer.scales.flatten().tolist() == [127, 128, 0, 0]
    assert layer.weight()[:, 0].tolist() == [6.0, 8.0, 0.0, 0.0]  # 7.9 is cut off


def test_nf4_has_the_codes_and_scales_of_bitsandbytes():
    layer = packed(sample(4, 128), "nf4")
    halves_swapped = (layer.codes >> 4) | (layer.codes << 4)  # the first of two is in the high half there
    assert hexadecimal(halves_swapped).startswith(NF4_START)
    assert layer.scales.flatten().tolist() == [1.5625, 1.5625, 3.125, 3.125, 4.6875, 4.6875, 6.25, 6.25]


def test_double_quantization_has_the_scales_of_bitsandbytes():
    weight = torch.randn(16, 64 * 40, generator=torch.Generator().manual_seed(0))
    single, double = packed(weight, "nf4"), packed(weight, "nf4_double")
    assert torch.equal(single.codes, double.codes)
    assert double.scale_mean.item() == pytest.approx(2.5917837619781494, rel=1e-6)
    expected = [1.7514965534210205, 1.2877397537231445, 1.9709117412567139]
    assert double.scale_scales.tolist() == pytest.approx(expected, rel=1e-5)
    error = (double.weight() - single.weight()).abs().max() / single.weight().abs().max()
    assert 0 < error < 0.02


@pytest.mark.parametrize("format", FORMATS)
def test_a_weight_takes_its_nominal_bits_and_those_of_its_scales(format):
    layer = packed(torch.randn(64, 1024, generator=torch.Generator().manual_seed(0)), format)
    n_bytes = sum(tensor.nbytes for tensor in layer.state_dict().values())
    assert 8 * n_bytes / layer.count().weights == pytest.approx(BITS[format], rel=0.02)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("sharing", ["tensor", "channel", "block"])
@pytest.mark.parametrize("shape", [(5, 7), (130, 140)])
def test_the_layer_is_equal_when_it_is_made_again(format, sharing, shape):
    layer = packed(torch.randn(shape, generator=torch.Generator().manual_seed(0)), format, sharing)
    with empty_weights():
        again = FormatLinear(**layer.arguments())
    assign_weights(again, layer.state_dict())
    x = torch.randn(3, shape[1])
    assert torch.equal(again(x), layer(x))
    assert torch.allclose(layer(x), F.linear(x, layer.weight()))
    index = torch.tensor([2, 0, 2])
    assert torch.equal(layer.rows(index), layer.weight()[index])
    assert layer.to(torch.bfloat16).weight().equal(again.weight())


@pytest.mark.parametrize("format", FORMATS)
def test_grids_of_columns_give_the_layer_that_whole_groups_give(format):
    """GPTQ rounds column by column: with inputs that do not correlate, it must round each weight to the nearest."""
    linear = linear_of(torch.randn(12, 96, generator=torch.Generator().manual_seed(0)))
    scheme = FormatScheme(format)
    roundings = []

    def sweep(fit, columns):
        roundings.append(Rounding(fit, columns))
        solve(linear.weight.detach(), factorize(torch.eye(96)), rounding=roundings[-1])
        return roundings[-1].result()

    assert torch.equal(scheme.pack(linear, sweep).weight(), scheme.quantize(linear).weight())


@pytest.mark.parametrize("format", ["mxfp4", "nvfp4", "nf4", "ternary", "fp8_e4m3"])
def test_second_order_rounding_to_a_format_lowers_the_error_of_the_outputs(format):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(24, 64, generator=generator)
    x = torch.randn(256, 16, generator=generator) @ torch.randn(16, 64, generator=generator)
    hessian = 2 / len(x) * x.t() @ x
    scheme = FormatScheme(format)

    def sweep(fit, columns):
        rounding = Rounding(fit, columns)
        solve(weight, factorize(hessian), rounding=rounding)
        return rounding.result()

    nearest = exact_error(scheme.quantize(linear_of(weight)).weight() - weight, hessian)
    swept = exact_error(scheme.pack(linear_of(weight), sweep).weight() - weight, hessian)
    assert swept < 0.7 * nearest


def test_ternary_and_binary_by_hand():
    weight = torch.tensor([[0.1, -0.2, 1.0, -2.0]])  # mean magnitude 0.825, threshold 0.5775
    assert packed(weight, "ternary").weight().tolist() == [[0.0, 0.0, 1.5, -1.5]]
    magnitude = torch.tensor(0.825).half().item()
    assert packed(weight, "binary").weight().tolist() == [[magnitude, -magnitude, magnitude, -magnitude]]


def test_each_format_is_as_precise_as_its_bits():
    """Relative error on normal weights: more bits, smaller blocks and quantiles of the normal distribution help."""
    weight = torch.randn(64, 1024, generator=torch.Generator().manual_seed(0))
    error = {name: ((packed(weight, name).weight() - weight).norm() / weight.norm()).item() for name in FORMATS}
    order = ["fp8_e4m3", "fp8_e5m2", "nf4", "nvfp4", "mxfp4", "ternary", "binary"]
    assert sorted(order, key=error.__getitem__) == order
    assert error["fp8_e4m3"] == pytest.approx(0.0264, abs=0.002)  # 2**-4 / sqrt(3) / sqrt(2) or so
    assert error["binary"] == pytest.approx((1 - 2 / torch.pi) ** 0.5, abs=0.005)  # of a sign and its best scale


def test_a_row_of_zeros_stays_zero_in_every_format():
    weight = torch.randn(4, 96, generator=torch.Generator().manual_seed(0))
    weight[1] = 0
    for format in FORMATS:
        layer = packed(weight, format)
        assert not layer.weight()[1].any(), format
        assert layer.weight().isfinite().all(), format
    assert packed(weight, "fp8_e4m3").scales.dtype == torch.float16


LAYERS = {  # rows of the table in docs/number-formats.md
    "`fp8_e4m3` per channel": FormatScheme("fp8_e4m3").quantize,
    "`fp8_e5m2` per channel": FormatScheme("fp8_e5m2").quantize,
    "`mxfp8`": FormatScheme("mxfp8").quantize,
    "`rtn`, 8 bits per channel": Rtn(bits=8).quantize,
    "`nvfp4`": FormatScheme("nvfp4").quantize,
    "`nf4`": FormatScheme("nf4").quantize,
    "`rtn`, 4 bits, groups of 32": Rtn(bits=4, granularity="group", group_size=32).quantize,
    "`mxfp4`": FormatScheme("mxfp4").quantize,
    "`rtn`, 4 bits, groups of 64": Rtn(bits=4, granularity="group", group_size=64).quantize,
    "`nf4_double`": FormatScheme("nf4_double").quantize,
    "`rtn`, 4 bits, groups of 128": Rtn(bits=4, granularity="group", group_size=128).quantize,
    "`ternary` per channel": FormatScheme("ternary").quantize,
    "`binary` per channel": FormatScheme("binary").quantize,
}


@pytest.fixture(scope="module")
def documented():
    """Rows of the document's table: the four figures by the layer's description."""
    text = (Path(__file__).parents[3] / "docs" / "number-formats.md").read_text().partition("| measured |")[2]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return {name: [float(figure) for figure in figures] for name, *figures in rows}


@pytest.fixture(scope="module")
def weights():
    """Normal weights, and the same divided so that they follow Student's t with 5 degrees of freedom."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(256, 4096, generator=generator)
    return normal, normal / torch.randn(256, 4096, 5, generator=generator).square().mean(2).sqrt()


@torch.no_grad()
@pytest.mark.parametrize("name", LAYERS)
def test_the_document_tells_the_bits_and_errors_that_are_measured(name, documented, weights):
    assert documented.keys() == LAYERS.keys()
    layers = [LAYERS[name](linear_of(weight)) for weight in weights]
    count = layers[0].count()
    n_bytes = sum(tensor.nbytes for tensor in layers[0].state_dict().values())
    errors = [float((layer.weight() - w).norm() / w.norm()) for layer, w in zip(layers, weights, strict=True)]
    assert [count.bits, 8 * n_bytes / count.weights] == pytest.approx(documented[name][:2], abs=1e-3)
    assert errors == pytest.approx(documented[name][2:], rel=0.01)
