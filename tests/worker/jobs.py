"""What children do in the tests of `worker.child` and `worker.supervisor`."""

import os
import sys
import time
from pathlib import Path


def double(number):
    return 2 * number


def fail():
    raise ValueError("no")


def exit_at_once():
    os._exit(3)


def identity():
    """Process id, session, and out-of-memory score."""
    return os.getpid(), os.getsid(0), int(Path("/proc/self/oom_score_adj").read_text())


def sleep(seconds):
    time.sleep(seconds)


def speak():
    sys.stdout.write("to stdout\n")
    sys.stderr.write("to stderr\n")
    os.system("echo from a child of its own")
