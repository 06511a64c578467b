"""What the run page says of calibration data."""

from app.text.calibration import describe_calibration, list_calibration_notes, make_calibration_table

LAYER = {"name": "blocks.0.up", "tokens": 40, "inputs": 8, "dead inputs": 0, "outlier ratio": 3.456}
EXPERTS = {**LAYER, "name": "blocks.1.up", "experts": 4, "fewest tokens of an expert": 0}


def coverage(*layers: dict, tokens: int = 1240) -> dict:
    return {"examples": {"task": 16, "file:a.txt": 1}, "tokens": tokens, "layers": list(layers)}


def test_examples_are_told_by_source():
    assert describe_calibration(coverage()) == "16 examples of task, 1 example of file:a.txt, 1.24 k tokens"
    assert describe_calibration(coverage(tokens=0)) == "16 examples of task, 1 example of file:a.txt"


def test_layers_are_a_table_without_columns_that_none_has():
    table = make_calibration_table(coverage(LAYER))
    assert list(table.columns) == ["Layer", "Tokens", "Inputs", "Dead inputs", "Outlier ratio"]
    assert table["Outlier ratio"].tolist() == [3.5]
    assert "Fewest tokens of an expert" in make_calibration_table(coverage(LAYER, EXPERTS))


def test_what_is_wrong_is_said():
    assert len(list_calibration_notes(coverage(LAYER))) == 1
    wrong = {**LAYER, "dead inputs": 2, "outlier ratio": 88.0}
    notes = " ".join(list_calibration_notes(coverage(wrong, EXPERTS)))
    assert "2 input channels stayed zero" in notes and "88.0×" in notes and "saw no token in blocks.1.up" in notes
    assert "does not look at the inputs" in list_calibration_notes(coverage())[0]
