"""Executes a run's spec in its own process. Only this, `checking` and `hardware` load torch."""

from core.artifacts.store import open_configured_store
from core.engine.pipeline import execute
from core.software import software
from core.spec.model import RunSpec
from core.store import runs
from core.store.engine import read_session
from worker.attempt import attempt
from worker.claim import Claim, Outcome, find_checkpoints
from worker.recorder import Recorder

software()  # remembered by the server that forks us: of the code that it loaded, whatever stands on the disk later


def run(claim: Claim) -> Outcome:
    """Execute a claimed run's spec and return how it ended."""
    return attempt(claim, _execute)


def _execute(claim: Claim, recorder: Recorder) -> None:
    with read_session() as s:
        spec = RunSpec.parse(runs.get_run(s, claim.run_id).spec)
    folder = find_checkpoints()
    folder.mkdir(parents=True, exist_ok=True)
    artifacts = open_configured_store()
    execute(spec, recorder, artifacts=artifacts, device=claim.device, resume=folder)
