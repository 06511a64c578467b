import pytest

from app.charts.architectures import describe_power, draw_growth, list_points
from core.complexity.fit import Exponent
from tests.core.complexity.reports import LENGTHS, measured, report

SURVEY = report(measured("full attention", 2), measured("retnet", 1), measured("encoder", 1, decodes=False))
NAMES = [architecture.name for architecture in SURVEY.architectures]


def test_a_power_reads_with_its_interval():
    assert describe_power(Exponent(1.0234, 0.98, 1.0668, 512, 4096)) == "T^1.02 ± 0.04"
    assert describe_power(Exponent(-0.004, -0.01, 0.002, 512, 4096)) == "T^0.00 ± 0.01"
    assert describe_power(Exponent(-0.2, -0.3, -0.1, 512, 4096)) == "T^−0.20 ± 0.10"
    assert describe_power(None) == ""


def test_points_are_the_costs_with_units():
    drawn = list_points(SURVEY, "decode_ms")
    assert set(drawn["name"]) == {"full attention", "retnet"}
    assert drawn["text"].unique().tolist() == ["0.500 ms"]
    first = list_points(SURVEY, "train_ms").iloc[0]
    assert first["label"] == "full attention  T^2.00 ± 0.00" and first["value"] == pytest.approx(65.536)


def spec(quantity="train_ms", names=NAMES, hidden=()):
    drawn = list_points(SURVEY, quantity)
    return draw_growth(drawn[~drawn["name"].isin(hidden)], quantity, names).to_dict()


def test_both_axes_are_logarithmic_with_units():
    lines = spec()["layer"][1]["encoding"]
    assert lines["x"]["scale"]["type"] == lines["y"]["scale"]["type"] == "log"
    assert lines["x"]["axis"]["values"] == LENGTHS and lines["x"]["title"] == "Sequence length T (tokens)"
    assert lines["y"]["title"] == "Forward and backward (s)"
    assert spec("state_bytes")["layer"][1]["encoding"]["y"]["title"] == "State while decoding (GB)"


def test_all_values_lie_on_the_chart():
    made = spec()
    low, high = made["layer"][1]["encoding"]["y"]["scale"]["domain"]
    rows = [row["scaled"] for data in made["datasets"].values() for row in data if "name" in row]
    assert low < min(rows) and max(rows) < high


def test_guides_have_slopes_one_and_two():
    made = spec()
    guides = next(data for data in made["datasets"].values() if "slope" in data[0])
    for slope in (1, 2):
        first, last = (row for row in guides if row["slope"] == slope)
        assert last["scaled"] / first["scaled"] == pytest.approx((4096 / 256) ** slope)
    assert made["layer"][0]["mark"]["clip"] is True


def test_colour_dash_and_shape_stay_with_an_architecture_whatever_is_hidden():
    whole, rest = spec(), spec(hidden=["full attention"])
    colours = [made["layer"][1]["encoding"]["color"]["scale"] for made in (whole, rest)]
    assert colours[0]["range"][1:] == colours[1]["range"] and colours[0]["domain"][1:] == colours[1]["domain"]
    many = report(*(measured(f"a{i}", 1) for i in range(14)))
    drawn = draw_growth(list_points(many, "train_ms"), "train_ms", [a.name for a in many.architectures]).to_dict()
    line, mark = drawn["layer"][1]["encoding"], drawn["layer"][2]["encoding"]
    looks = zip(
        line["color"]["scale"]["range"],
        map(tuple, line["strokeDash"]["scale"]["range"]),
        mark["shape"]["scale"]["range"],
        strict=True,
    )
    assert len(set(looks)) == 14


def test_tooltips_name_architecture_length_and_cost():
    tooltips = spec()["layer"][2]["encoding"]["tooltip"]
    assert [tooltip["title"] for tooltip in tooltips] == ["architecture", "tokens", "forward and backward"]
