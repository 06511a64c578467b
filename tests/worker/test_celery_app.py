import subprocess
import sys

import pytest
from kombu.exceptions import OperationalError

from worker import celery_app


def loaded_by(module, *prefixes):
    """Which of the modules with these names an import of `module` brings in."""
    code = f"import sys, {module}; print(sorted({{m.split('.')[0] for m in sys.modules}} & set({prefixes!r})))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_front_ends_enqueue_without_loading_torch():
    assert loaded_by("worker.celery_app", "torch", "transformers") == "[]"


def test_worker_itself_loads_no_torch():
    assert loaded_by("worker.tasks", "torch", "transformers") == "[]"


def test_core_knows_neither_celery_nor_the_worker():
    assert loaded_by("core.engine.pipeline", "celery", "worker", "app", "streamlit") == "[]"


def test_without_redis_enqueueing_fails_and_does_not_hang(monkeypatch, tmp_path):
    with celery_app.Celery(broker=f"redis+socket://{tmp_path}/none.sock") as nowhere:
        monkeypatch.setattr(celery_app, "app", nowhere)
        with pytest.raises(OperationalError):
            celery_app.enqueue("cpu")


@pytest.mark.parametrize(("device", "queues"), [("cpu", ["cpu"]), ("gpu", ["gpu"]), ("any", ["cpu", "gpu"])])
def test_wake_up_goes_to_the_queues_of_the_device(monkeypatch, device, queues):
    sent = []
    monkeypatch.setattr(celery_app.app, "send_task", lambda task, **options: sent.append((task, options)))
    celery_app.enqueue(device)
    assert [(task, options["queue"], options["args"]) for task, options in sent] == [
        ("worker.tasks.work", queue, ()) for queue in queues
    ]
    assert all(options["expires"] and options["retry"] is False for _, options in sent)


def test_tasks_are_registered_under_the_names_that_are_sent():
    from worker import tasks

    assert {tasks.work.name, tasks.check.name} == {"worker.tasks.work", "worker.tasks.check"}


def test_no_result_is_kept_and_nothing_is_delivered_twice():
    conf = celery_app.app.conf
    assert conf.task_ignore_result
    assert conf.result_backend is None
    assert not conf.task_acks_late
    assert conf.accept_content == ["json"]
