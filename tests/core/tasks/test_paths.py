"""Which files a spec may name: on a server those in the data folders, in the foreground all of its user."""

import pytest

from app.cli import foreground
from core.engine import pipeline
from core.errors import SpecError
from core.models.checkpoint import locate
from core.spec.model import RunSpec
from core.tasks import paths


@pytest.fixture
def outside(tmp_path, data, monkeypatch):
    """A model and a text outside of the data folder; the working directory is the folder that they are in."""
    folder = tmp_path / "mine"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}")
    (folder / "text.txt").write_text("text")
    (folder / "model" / "linked.json").symlink_to(folder / "text.txt")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.mark.parametrize("name", ["{folder}/text.txt", "text.txt", "./model/../text.txt", "~/text.txt"])
def test_only_the_foreground_finds_a_file_outside(name, outside):
    name = name.format(folder=outside)
    assert paths.find_permitted(name) is None
    with paths.permit_all():
        assert paths.find_permitted(name) == outside / "text.txt"
    assert paths.find_permitted(name) is None


def test_a_model_outside_is_found_with_its_own_links(outside):
    with pytest.raises(SpecError, match="SLIMBOARD_DATA"):
        locate("hf:./model", None, weights=False)
    with paths.permit_all():
        assert locate("hf:./model", None, weights=False) == outside / "model"


def test_a_name_below_the_datas_is_still_found(outside, data):
    (data / "shared.txt").write_text("text")
    with paths.permit_all():
        assert paths.get_permitted("task.source", "file:shared.txt", "shared.txt") == data / "shared.txt"
        with pytest.raises(SpecError, match="Check the path"):
            paths.get_permitted("task.source", "file:no.txt", "no.txt")


def test_a_run_in_the_foreground_may_name_any_file(outside, monkeypatch):
    found = []

    def execute(spec, *arguments, **settings):
        found.append(paths.find_permitted(spec.task.source.removeprefix("file:")))
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "execute", execute)
    with pytest.raises(KeyboardInterrupt):
        foreground.execute(RunSpec.parse({"model": "builtin:gpt", "task": "file:text.txt"}), "cpu")
    assert found == [outside / "text.txt"] and paths.find_permitted("text.txt") is None
