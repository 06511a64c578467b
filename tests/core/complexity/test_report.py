import pytest
from pydantic import ValidationError

from core import settings as settings_module
from core.complexity import report as reports
from core.complexity.report import Parallel, as_text, load, load_shipped, save
from tests.core.complexity.reports import measured, report


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SLIMBOARD_HOME", str(tmp_path))
    settings_module.settings.cache_clear()
    yield tmp_path
    settings_module.settings.cache_clear()


def test_each_quantity_has_its_own_exponent():
    survey = report(measured("a", 1.5))
    fits = {name: survey.fit(survey.architectures[0], name) for name in reports.QUANTITIES}
    values = [round(fits[name].value, 6) for name in reports.QUANTITIES]
    assert values == [1.5, 1.5, 0, 1, 1.5]
    classifier = report(measured("b", 1, decodes=False))
    assert classifier.fit(classifier.architectures[0], "state_bytes") is None


@pytest.mark.parametrize(
    ("operations", "expected"),
    [(0.0, Parallel.YES), (0.09, Parallel.YES), (0.11, Parallel.BLOCKS), (19.0, Parallel.BLOCKS), (21.0, Parallel.NO)],
)
def test_operations_tell_whether_a_training_is_parallel(operations, expected):
    survey = report(measured("a", 1, operations=operations))
    assert survey.parallel(survey.architectures[0]) is expected


def test_another_way_of_computing_short_sequences_does_not_count():
    architecture = measured("a", 1)
    architecture.costs.operations = [100, 300, 300, 300, 300]
    assert report(architecture).parallel(architecture) is Parallel.YES


def test_a_saved_survey_is_read_again(home):
    assert load() is None
    survey = report(measured("a", 1), measured("b", 2, decodes=False), refused={"c": "does not fit"})
    assert save(survey) == str(home / "artifacts" / "architectures.json")
    assert load() == survey
    save(report(measured("a", 1)))
    assert [architecture.name for architecture in load().architectures] == ["a"]


def test_a_broken_file_is_told(home):
    (home / "artifacts").mkdir()
    (home / "artifacts" / "architectures.json").write_text('{"lengths": []}')
    with pytest.raises(ValidationError):
        load()


def test_text_has_one_line_an_architecture():
    text = as_text(report(measured("a", 1), measured("b", 2)))
    assert reports.SurveyReport.model_validate_json(text) == report(measured("a", 1), measured("b", 2))
    assert sum('"train_ms"' in line for line in text.splitlines()) == 2


def test_the_shipped_survey_is_whole():
    survey = load_shipped()
    assert survey.lengths == sorted(survey.lengths) and len(survey.lengths) >= 5
    names = [architecture.name for architecture in survey.architectures]
    assert names[0] == "full attention" and "sliding_window" in names and len(set(names)) == len(names)
    for architecture in survey.architectures:
        assert architecture.paper.startswith("https://")
        assert survey.fit(architecture, "train_ms") is not None and survey.parallel(architecture) is not None
        assert all(len(costs) == len(survey.lengths) for _, costs in architecture.costs)
