import json

import torch

from core.measure import regressions
from tests.core.fakes import PlaneTask


class Shown(PlaneTask):
    """Tells people the number of an example."""

    def show(self, split, indices):
        return [{"image": bytes([index]), "label": self.class_names[int(self.labels[index])]} for index in indices]


def results(predicted: list[int], labels: list[int], nats: list[float]) -> dict[str, torch.Tensor]:
    made, right = torch.tensor(predicted), torch.tensor(labels)
    return {"predicted": made, "label": right, "correct": (made == right).float(), "nats": torch.tensor(nats)}


def test_what_only_the_compressed_model_gets_wrong_is_kept_worst_first_with_class_names(tmp_path):
    labels = [0, 1, 0, 1, 0]
    stage = results([1, 0, 0, 0, 1], labels, [1.0, 3.0, 0.1, 2.0, 5.0])
    reference = results([0, 1, 0, 1, 1], labels, [0.1, 0.1, 0.1, 0.1, 0.1])  # it gets the last one wrong too
    regressions.save(tmp_path, Shown(5), stage, reference, "key", None)
    items = json.loads((tmp_path / "mistakes-key.json").read_text())
    assert [item["index"] for item in items] == [1, 3, 0]
    assert [(item["predicted"], item["reference_predicted"]) for item in items[:1]] == [("left", "right")]
    assert items[0]["image"] == "AQ==" and items[0]["nats"] == 3.0
    assert [path.name for path in tmp_path.iterdir()] == ["mistakes-key.json"]


def test_of_a_scored_subset_the_examples_keep_their_numbers(tmp_path):
    task = Shown(64)
    indices = regressions.scored_indices(64, 4).tolist()
    stage = results([1] * 4, [0] * 4, [1.0, 2.0, 3.0, 4.0])
    regressions.save(tmp_path, task, stage, results([0] * 4, [0] * 4, [0.0] * 4), "key", 4)
    items = json.loads((tmp_path / "mistakes-key.json").read_text())
    assert [item["index"] for item in items] == indices[::-1]
