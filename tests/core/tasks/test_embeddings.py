"""Embeddings: what their files may look like, how pairs become batches, and how they are scored."""

import json

import numpy as np
import pytest
import torch
from scipy import stats

from core import tasks
from core.errors import SpecError
from core.models.tokenizer import ByteTokenizer
from core.settings import settings
from core.spec.model import TaskSpec
from core.tasks.base import InputFormat
from core.tasks.embeddings import LABEL_STEPS
from core.tasks.kinds import Kind
from core.tasks.preview import preview
from tests.core.sentences import save_pairs, save_texts, sentences


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SLIMBOARD_DATA", str(tmp_path))
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


def load(source: str, **changes: object):
    task = tasks.load(TaskSpec.model_validate({"source": f"file:{source}", "kind": "embeddings", **changes}))
    task.prepare(InputFormat(tokenizer=ByteTokenizer(), length=12))
    return task


def write_rows(folder, rows: list[dict]) -> str:
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return "rows.jsonl"


def refusal(source: str, **changes: object) -> str:
    with pytest.raises(SpecError) as error:
        load(source, **changes)
    return str(error.value)


def pair_rows(**changes: object) -> list[dict]:
    return [
        {"text_a": text, "text_b": text[::-1], "similarity": index % 5, **changes}
        for index, text in enumerate(sentences(40))
    ]


def test_a_text_file_has_one_text_a_line(folder):
    task = load(save_texts(folder).name)
    counts = [len(task.split(split)) for split in ("train", "validation", "test", "calibration")]
    assert sum(counts[:3]) == 120 and counts[3] == counts[0]
    assert task.kind is Kind.EMBEDDINGS and task.score.is_relative
    shown = [item["text"] for item in task.show("test", list(range(counts[2])))]
    assert set(shown) <= set(sentences(120))


def test_a_pair_is_one_example_of_two_texts(folder):
    task = load(save_pairs(folder).name)
    batch = task.split("test").batch(torch.tensor([3, 0]))
    assert batch["input_ids"].shape[:2] == batch["attention_mask"].shape[:2] == (2, 2)
    shown = [item["text"].split(" ↔ ") for item in task.show("test", [3, 0])]
    for row, texts in zip(batch["input_ids"], shown, strict=True):
        for ids, text in zip(row, texts, strict=True):
            assert bytes(i for i in ids.tolist() if i < 256).decode() == text[:12]


def test_labels_run_from_the_lowest_training_score_to_the_highest(folder):
    task = load(save_pairs(folder).name)
    scores, labels = task.data.scores["train"], task.split("train").batch(torch.arange(48))["labels"]
    expected = (scores[:48] - scores.min()) / (scores.max() - scores.min())
    assert np.allclose(labels / LABEL_STEPS, expected, atol=1e-6) and not labels.is_floating_point()


def test_the_loss_is_the_squared_error_of_the_cosine(folder):
    task = load(save_pairs(folder).name)
    embeddings = torch.tensor([[[1.0, 0.0], [3.0, 4.0]], [[0.0, 1.0], [1.0, 0.0]]])  # cosines 0.6 and 0
    batch = {"labels": torch.tensor([LABEL_STEPS // 2, LABEL_STEPS])}
    assert float(task.loss(embeddings, batch)) == pytest.approx((0.1**2 + 1.0**2) / 2)


def test_the_score_is_spearmans_correlation(folder):
    task = load(save_pairs(folder).name)
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(30, 2, 6, generator=generator)
    labels = torch.randint(0, 6, (30,), generator=generator) * (LABEL_STEPS // 5)  # with ties
    examples = task.per_example(embeddings, {"labels": labels})
    cosine = torch.nn.functional.cosine_similarity(embeddings[:, 0], embeddings[:, 1])
    found = task.summarize(examples)
    assert found["Spearman correlation"] == pytest.approx(100 * stats.spearmanr(cosine, labels).statistic)
    assert found["Pearson correlation"] == pytest.approx(100 * np.corrcoef(cosine, labels)[0, 1], abs=1e-3)
    collapsed = task.per_example(torch.ones(30, 2, 6), {"labels": labels})
    assert task.summarize(collapsed)["Spearman correlation"] == 0


def test_columns_are_found_by_name_or_given(folder):
    source = write_rows(folder, pair_rows())
    assert len(load(source).data.scores["train"])
    named = load(source, text_column="text_b", second_column="text_a")
    assert named.data.partners["train"][0] == named.data.texts["train"][0][::-1]
    assert tasks.load(TaskSpec.model_validate({"source": "file:rows.jsonl", "score_column": "similarity"})).kind is (
        Kind.EMBEDDINGS
    )  # what is given says the kind


def test_pairs_without_scores_are_their_texts(folder):
    rows = [{"text_a": row["text_a"], "text_b": row["text_b"]} for row in pair_rows()]
    task = load(write_rows(folder, rows))
    assert task.score.is_relative and not task.data.partners
    n_texts = sum(len(texts) for texts in task.data.texts.values())
    assert n_texts == 80


def test_what_is_not_a_pair_with_a_score_is_refused_by_row(folder):
    rows = pair_rows()
    rows[6]["similarity"] = "high"
    assert "contains 'high' in line 7, which is not a number" in refusal(write_rows(folder, rows))
    rows = pair_rows()
    rows[2]["text_b"] = None
    assert "contains None in line 3, which is not text" in refusal(write_rows(folder, rows))
    assert "has the same score in every row" in refusal(write_rows(folder, pair_rows(similarity=1)))
    source = write_rows(folder, [{"text": text, "score": 1} for text in sentences(20)])
    assert "no column with the second texts" in refusal(source, score_column="score")
    assert "is not a column of the data" in refusal(source, second_column="other")


def test_own_splits_are_kept(folder):
    for name, seed in (("train", 0), ("dev", 1), ("test", 2)):
        (folder / f"{name}.txt").write_text("\n".join(sentences(30, seed)))
    task = load("train.txt", validation_file="dev.txt", test_file="test.txt")
    assert set(task.data.texts["test"]) == set(sentences(30, 2))
    assert len(task.data.texts["train"]) == 30


def test_the_identity_follows_texts_and_scores_but_not_the_columns_names(folder):
    first = load(write_rows(folder, pair_rows())).content_hash
    renamed = [{"first": r["text_a"], "second": r["text_b"], "gold": r["similarity"]} for r in pair_rows()]
    assert load(write_rows(folder, renamed), score_column="gold").content_hash == first
    changed = pair_rows()
    changed[0]["similarity"] = 3
    assert load(write_rows(folder, changed)).content_hash != first


def test_a_preview_shows_pairs_with_their_scores(folder):
    found = preview(TaskSpec.model_validate({"source": f"file:{save_pairs(folder).name}", "kind": "embeddings"}))
    assert found.kind is Kind.EMBEDDINGS and found.counts["test"] == 16 and not found.classes
    assert " ↔ " in found.items[0].text and float(found.items[0].label) >= 0
    assert any("only 16 examples" in warning for warning in found.warnings)
