"""Tables as spreadsheets and scripts write them: read right, or refused with the line."""

import json

import pytest

from core.errors import SpecError
from core.spec.model import TaskSpec
from core.tasks.catalogue import read
from core.tasks.columns import classes_of
from core.tasks.sources.table import read_table


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "text;label\none, two;x\n"),
        ("t.csv", 'text, label\n"one, two", x\n'),
        ("t.csv", "text\tlabel\none, two\tx\n"),
        ("t.tsv", "text\tlabel\none, two\tx\n"),
        ("t.tsv", 'text,label\n"one, two",x\n'),
        ("t.csv", '"text";"label"\n"one, two";"x"\n'),
    ],
)
def test_separator_and_blanks_are_recognised(data, name, content):
    (data / name).write_text(content)
    assert read_table(data / name).columns == {"text": ["one, two"], "label": ["x"]}


def test_only_text_and_label_must_be_in_every_line(data):
    rows = [{"text": f"text {i}", "label": "ab"[i % 2], **({"meta": i} if i % 3 == 1 else {})} for i in range(40)]
    (data / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read_table(data / "t.jsonl").columns["meta"][:5] == [None, 1, None, None, 4]
    assert read(TaskSpec(source="file:t.jsonl")).class_names == ("a", "b")


REFUSED = [
    ("t.csv", "text,label,label\na,x,y\n", "line 1 has the column 'label' twice"),
    ("t.csv", "text,label, label\na,x,y\n", "line 1 has the column 'label' twice"),
    (
        "t.jsonl",
        '{"text": "a", "label": 1}\n{"text": "b", "label": 1, "label": 2}',
        "line 2 has the column 'label' twice",
    ),
    ("t.jsonl", '\n{"text": "a \\ud83d b", "label": 1}', "line 2 contains half of a surrogate pair"),
    ("t.jsonl", '\n{"text": "a", "label": ["x"]}', "contains ['x'] in line 2, which is not a single label"),
    ("t.jsonl", '{"text": "a", "label": {"x": 1}}', "contains {'x': 1} in line 1, which is not a single label"),
    ("t.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": NaN}', "is empty in line 2"),
    ("t.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}', "is empty in line 2"),
    ("t.jsonl", '{"text": "a", "label": 1}\n{"label": 1}', "contains None in line 2, which is not text"),
    ("t.csv", "text,label\na,1\nb,nan\nc,0\n", "is not a number in line 3"),
]


@pytest.mark.parametrize(("name", "content", "words"), REFUSED)
def test_what_cannot_be_read_right_is_refused_with_its_line(data, name, content, words):
    (data / name).write_text(content)
    with pytest.raises(SpecError) as error:
        read(TaskSpec(source=f"file:{name}"))
    (problem,) = error.value.problems
    assert words in problem.message and problem.remedy


def test_numbers_are_classes_by_value_in_any_notation():
    names, labels = classes_of([1, "1.0", 0, "0", 1.0, "1e0", 10, 2])
    assert names == ("0", "1", "2", "10") and labels.tolist() == [1, 1, 0, 0, 1, 1, 3, 2]
    assert classes_of(["0.5", "0.50", "-1"])[0] == ("-1", "0.5")
    assert classes_of(["12345678901234567890", "12345678901234567891"])[1].tolist() == [0, 1]  # not as floats


def test_nan_is_a_name_among_names():
    assert classes_of(["cmn", "nan", "yue"])[0] == ("cmn", "nan", "yue")  # codes of languages
