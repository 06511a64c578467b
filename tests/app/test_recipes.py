"""What ships: presets and demonstration recipes."""

from pathlib import Path

import pytest

import app
from app.screens.submit import editor
from core.spec.catalogue import built_in
from core.spec.model import RunSpec
from core.spec.schema_validation import validate

FOLDER = Path(app.__file__).parent
FILES = sorted([*FOLDER.glob("screens/submit/presets/*.yaml"), *FOLDER.glob("cli/demo_recipes/*.yaml")])
DEMO = [RunSpec.from_yaml(file.read_text()) for file in sorted(FOLDER.glob("cli/demo_recipes/*.yaml"))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_shipped_recipe_is_valid(file):
    validate(RunSpec.from_yaml(file.read_text()), built_in())


def test_presets_have_a_title_and_say_what_they_are_for():
    presets = editor.read_presets()
    assert len(presets) >= 8
    assert all(preset.title and preset.description for preset in presets)


def test_the_demonstration_trains_its_shared_prefix_once():
    assert len(DEMO) == 8
    assert len({spec.name for spec in DEMO}) == 8
    prefixes = [(spec.model.source, str(spec.recipe[0])) for spec in DEMO]
    assert max(map(prefixes.count, prefixes)) >= 5
