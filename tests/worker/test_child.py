import os
import subprocess
import sys
import time

import psutil
import pytest

from worker import child
from worker.output import MAX_LINES, Output


@pytest.fixture(autouse=True)
def light(monkeypatch):
    """No torch in the fork server: nothing here computes."""
    monkeypatch.setattr(child, "PRELOADED", ["tests.worker.jobs"])


def ask(function, *args, timeout=60.0):
    return child.answer(f"tests.worker.jobs:{function}", *args, timeout=timeout)


def test_answer_is_what_the_function_returns():
    assert ask("double", 21) == 42


def test_exception_comes_back_with_its_traceback():
    with pytest.raises(child.ChildError, match="ValueError: no") as raised:
        ask("fail")
    assert "jobs.py" in raised.value.trace


def test_death_and_delay_are_errors():
    with pytest.raises(child.ChildError, match="died"):
        ask("exit_at_once")
    with pytest.raises(TimeoutError):
        ask("sleep", 60, timeout=0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_child_leads_a_session_and_goes_first_when_memory_is_short():
    pid, session, score = ask("identity")
    assert pid == session != os.getpid()
    assert score == child.OOM_SCORE


def test_output_of_the_child_and_its_children_is_captured():
    started = child.start("tests.worker.jobs:speak")
    started.answers.recv()
    started.process.join()
    output = Output(started.output)
    output.read()
    started.close()
    assert sorted(text for _, _, text in output.take()) == ["from a child of its own", "to stderr", "to stdout"]


def test_child_ends_when_its_supervisor_is_killed():
    code = (
        "import os, signal; from worker import child; child.PRELOADED[:] = ['tests.worker.jobs'];"
        "started = child.start('tests.worker.jobs:sleep', 100); print(started.pid, flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    answered = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    pid = int(answered.stdout)
    end = time.monotonic() + 60
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_lines_are_whole_whatever_the_blocks_are():
    reader, writer = os.pipe()
    output = Output(reader)
    for block in (b"one\ntw", b"o\n\n10%\r20%\r", b"30%\nlast"):
        os.write(writer, block)
        output.read()
    assert [text for _, _, text in output.take()] == ["one", "two", "30%"]
    os.close(writer)
    output.read()
    assert [text for _, _, text in output.take()] == ["last"]
    assert not output.open
    os.close(reader)


def test_endless_output_is_cut_with_a_word():
    reader, writer = os.pipe()
    output = Output(reader)
    for _ in range(MAX_LINES // 100 + 2):
        os.write(writer, b"line\n" * 100)
        output.read()
    lines = output.take()
    assert len(lines) == MAX_LINES
    assert lines[-1][1:] == ("warning", f"further output is not kept (after {MAX_LINES} lines)")
    os.close(writer)
    os.close(reader)
