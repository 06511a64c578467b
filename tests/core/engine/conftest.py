"""What the tests of the pipeline share."""

import pytest

from core.engine.recording import MemoryRecord
from tests.core.engine.small_runs import MORE, TRAIN, run, spec


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of two trainings, computed without any reuse."""
    folder = tmp_path_factory.mktemp("whole")
    record = MemoryRecord()
    return folder, run(folder, spec(TRAIN, MORE), record), record
