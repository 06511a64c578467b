import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from core import fresh_process
from core.fresh_process import FreshProcessDied, FreshProcessError, Raised, Returned, in_fresh_process
from core.measure.peak import measure_peak

COUNTED_LATE = 800_000  # bytes: the kernel adds up each thread's resident pages in batches of 64
linux = pytest.mark.skipif(sys.platform != "linux", reason="peaks are exact on Linux only")


def add(first, second):
    return first + second, os.getpid()


def fail(message):
    raise LookupError(message)


def die(number):
    os.kill(os.getpid(), number)


def sleep_and_tell(path):
    path.write_text(str(os.getpid()))
    time.sleep(60)


def nest(value):
    return in_fresh_process(add, value, 1), os.getpid()


def wait_for_grandchild(path):
    return in_fresh_process(sleep_and_tell, path)


def identity():
    """Process id, session, and out-of-memory score."""
    return os.getpid(), os.getsid(0), int(Path("/proc/self/oom_score_adj").read_text())


def speak():
    sys.stdout.write("to stdout\n")
    sys.stderr.write("to stderr\n")
    os.system("echo from a child of its own")


def hold(n_bytes):
    block = torch.ones(n_bytes, dtype=torch.uint8)
    return int(block[-1])


def hold_briefly(n_bytes):
    for _ in range(5):
        block = torch.ones(n_bytes, dtype=torch.uint8)
        del block


def hold_small_blocks(n_blocks):
    blocks = [torch.ones(32 * 1024, dtype=torch.uint8) for _ in range(n_blocks)]
    return len(blocks)


def is_alive(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def eventually(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_function_answers_from_another_process():
    value, process = in_fresh_process(add, torch.tensor([1.0]), torch.tensor([2.0]))
    assert torch.equal(value, torch.tensor([3.0]))
    assert process != os.getpid()


def test_its_exception_arrives_with_its_traceback():
    with pytest.raises(FreshProcessError, match="LookupError: no such thing") as raised:
        in_fresh_process(fail, "no such thing")
    assert any("in fail" in note for note in raised.value.__notes__)


def test_a_killed_process_is_told_from_one_that_crashed():
    with pytest.raises(FreshProcessDied, match="memory ran out"):
        in_fresh_process(die, signal.SIGKILL)
    with pytest.raises(FreshProcessDied, match="SIGSEGV"):
        in_fresh_process(die, signal.SIGSEGV)


def test_large_answers_arrive_whole():
    value, _ = in_fresh_process(add, torch.zeros(1_000_000), 1)
    assert value.sum() == 1_000_000


def test_waiting_can_be_given_up_and_ends_the_process(tmp_path):
    pid_file = tmp_path / "pid"

    def stop_when_it_runs():
        if pid_file.exists() and pid_file.read_text():
            raise InterruptedError

    with pytest.raises(InterruptedError):
        in_fresh_process(sleep_and_tell, pid_file, tick=stop_when_it_runs)
    eventually(lambda: not psutil.pid_exists(int(pid_file.read_text())))


def test_a_process_that_takes_too_long_is_ended(tmp_path):
    with pytest.raises(TimeoutError, match="within"):
        in_fresh_process(sleep_and_tell, tmp_path / "pid", timeout=0.2)


@linux
def test_a_fresh_process_can_have_a_fresh_process_from_the_same_server():
    (value, inner_pid), outer_pid = in_fresh_process(nest, 1)
    assert value == 2
    assert len({inner_pid, outer_pid, os.getpid()}) == 3


def test_a_function_may_be_named_so_that_it_is_not_imported_here():
    value, process = in_fresh_process("tests.core.test_fresh_process:add", 20, 1)
    assert value == 21
    assert process != os.getpid()


@linux
def test_a_fresh_process_leads_a_session_and_goes_first_when_memory_is_short():
    pid, session, score = in_fresh_process(identity)
    assert pid == session != os.getpid()
    assert score == fresh_process.OOM_SCORE


def test_output_of_the_process_and_its_children_is_captured_where_asked():
    started = fresh_process.start(speak, capture=True)
    assert started.answer() == Returned(None)
    assert started.exit_code() == 0
    printed = os.read(started.output, 65536).decode()
    started.close()
    assert sorted(printed.splitlines()) == ["from a child of its own", "to stderr", "to stdout"]


def test_a_started_process_tells_an_exception_from_a_death():
    raising, dying = fresh_process.start(fail, "no"), fresh_process.start(die, signal.SIGTERM)
    raised = raising.answer()
    assert isinstance(raised, Raised)
    assert (raised.name, raised.text) == ("LookupError", "no")
    assert "in fail" in raised.trace
    assert dying.answer() is None
    assert fresh_process.describe_exit(dying.exit_code()) == "crashed (SIGTERM)"
    raising.close()
    dying.close()


def test_a_process_ends_when_its_parent_is_killed():
    code = (
        "import os, signal; from core import fresh_process;"
        "print(fresh_process.start('time:sleep', 100).pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    answered = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    eventually(lambda: not is_alive(int(answered.stdout)))


@linux
def test_a_grandchild_ends_when_its_parent_is_killed(tmp_path):
    pid_file = tmp_path / "pid"

    def kill_the_parent():
        if pid_file.exists() and pid_file.read_text():
            raise InterruptedError  # in_fresh_process kills the child, which asked for the grandchild

    with pytest.raises(InterruptedError):
        in_fresh_process(wait_for_grandchild, pid_file, tick=kill_the_parent)
    eventually(lambda: not psutil.pid_exists(int(pid_file.read_text())))


@linux
@pytest.mark.parametrize("megabytes", [1, 8, 100])
def test_peak_is_what_was_held_at_once(megabytes):
    n_bytes = megabytes * 1024**2
    found = measure_peak(hold, n_bytes)
    assert found.value == 1
    assert found.peak_bytes == pytest.approx(n_bytes, abs=COUNTED_LATE)


@linux
def test_memory_that_was_freed_in_between_counts_once():
    n_bytes = 10 * 1024**2
    assert measure_peak(hold_briefly, n_bytes).peak_bytes == pytest.approx(n_bytes, abs=COUNTED_LATE)


@linux
def test_small_blocks_count_although_they_share_pages_with_freed_ones():
    assert measure_peak(hold_small_blocks, 256).peak_bytes == pytest.approx(8 * 1024**2, rel=0.1)
