"""A run with hostile text wherever a user, a model, a data set or a worker can put any."""

from sqlalchemy import update
from sqlalchemy.orm import Session

from core.measured import Comparison
from core.store import curves, runs, stages, users, views, workers
from core.store.models import FailureClass, Run, RunStatus
from tests import factories

TEXT = "<script>alert(1)</script> [x](javascript:alert(1)) ![i](http://example.org/i.png) **b** :red[x] $x$"


def add_run(s: Session, text: str = TEXT) -> int:
    """A failed run with the text in every place: two stages (keys aaa…, bbb…), a note, a tag and a shared view."""
    run = factories.submit(s, name=text[:200])
    worker = workers.register_worker(s, text[:200], "cpu", hardware={}, offers={}, provides=["cpu"])
    for position, key in enumerate("ab"):
        short = text[:200]
        stage = factories.measured(key * 64, label=short, model=short, task=short, compressed=key == "b")
        stage_id = stages.add_stage(s, stage, f"{key * 2}/{key * 64}", 1_001, "0")
        reference = stages.find_stage_id(s, "a" * 64)
        comparison = Comparison(-0.5, -1.0, 0.1, 0.2) if key == "b" else None
        stages.attach_stage(
            s, run.id, position, stage_id, reused=False, reference_stage_id=reference, comparison=comparison
        )
        timed = [factories.latency(hardware=short, software=short)]
        stages.set_latencies(s, run.id, stage_id, timed, reference)
    curves.add_points(s, run.id, [(f"1/{text[:98]}", i, 2.0 - i / 10) for i in range(3)])
    runs.add_tag(s, run.id, text[:60] if len(text) > 120 else text)
    author = users.enrol(s, text[:200]).id
    runs.add_note(s, run.id, author, f"first line\n{text}")
    view = views.save_view(
        s, project_id=run.project_id, owner_id=author, page="runs", name=text[:100], query=f"text={text}"
    )
    views.share_view(s, view, shared=True)
    written = {"environment": {text: text}, "model": text[:300], "task": text[:300], "recipe": text}
    failed = {"status": RunStatus.FAILED, "failure": FailureClass.TECHNIQUE, "failure_message": text}
    told = {**written, **failed, "worker_id": worker, "started_at": 1000.0, "attempt": 1, "progress_text": text[:300]}
    s.execute(update(Run).where(Run.id == run.id).values(told))
    return int(run.id)
