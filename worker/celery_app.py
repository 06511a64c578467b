"""The Celery application, through which a front end announces work. Loads no torch.

A message is only a wake-up and contains no run: the queue is in the store. A duplicate message finds
nothing to do, and the workers' timers compensate for a lost one.
"""

import os

from celery import Celery

from core.settings import settings

CHECK_QUEUE = "check"
WAKE_SECONDS = 60  # a wake-up that nobody took for so long is dropped: the timers have looked since

app = Celery("slimboard", broker=settings().redis_url)
app.conf.update(
    include=["worker.tasks"],  # loaded by workers only
    task_acks_late=False,  # the SQL lease decides about retries; Redis must not deliver a long run twice
    task_ignore_result=True,  # results are rows in the store
    result_backend=None,
    task_track_started=False,
    task_serializer="json",
    accept_content=["json"],  # nothing that executes when it is read
    task_default_queue="cpu",
    worker_pool="threads",  # the supervisor waits; the run itself is a fresh process
    worker_concurrency=2,  # one run at a time (worker/loop.py holds to it), and meanwhile an answer about a spec
    worker_prefetch_multiplier=1,
    worker_disable_prefetch=True,  # a busy worker leaves messages to the others
    worker_send_task_events=False,  # nobody listens: workers beat into the store
    worker_enable_remote_control=False,  # runs are cancelled in the store; `revoke` might hit the next one
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,  # Redis may come back after any time; the timers work without it
    broker_connection_timeout=2,  # seconds; a page must not hang because Redis is down
    broker_transport_options={
        "visibility_timeout": 43_200,  # 12 h: messages are acknowledged at once, so this only bounds mishaps
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "health_check_interval": 10,  # seconds; finds a connection that died silently
    },
)


def enqueue(device: str) -> None:
    """Tell the workers of a device (cpu, gpu; any: both) that there is work; call it after the commit.

    Raises kombu's OperationalError if Redis is unreachable; a worker's timer still finds the run.
    """
    for queue in ("cpu", "gpu") if device == "any" else (device,):
        _send("worker.tasks.work", queue)


def enqueue_check(spec_hash: str, device: str = "any") -> None:
    """Ask the next worker to check a spec recorded by `core.store.checks.ask`; the answer is a row."""
    _send("worker.tasks.check", CHECK_QUEUE, spec_hash)


def make_worker_arguments(device: str) -> list[str]:
    """Arguments of `python -m celery` for a worker of one device.

    Start it this way, not from within another program: each run's process would import that program's main module.
    """
    return [
        "-A",
        "worker.celery_app",
        "worker",
        "--queues",
        f"{device},{CHECK_QUEUE}",
        "--hostname",
        f"{device}-{os.getpid()}@%h",
        "--loglevel",
        "INFO",
        "--without-gossip",  # workers know each other through the store
        "--without-mingle",
        "--without-heartbeat",
    ]


def _send(task: str, queue: str, *arguments: str) -> None:
    app.send_task(task, args=arguments, queue=queue, expires=WAKE_SECONDS, retry=False, ignore_result=True)
