"""Writes the output of a run's process to the run's log, line by line."""

import os
import time

MAX_LINES = 5000  # of one attempt; a technique that prints in a loop must not fill the store
MAX_LINE = 4000  # characters


class Output:
    """Reads a descriptor without blocking."""

    def __init__(self, descriptor: int):
        self.descriptor = descriptor
        os.set_blocking(descriptor, False)
        self.open = True
        self.rest = b""
        self.n_lines = 0
        self.lines: list[tuple[float, str, str]] = []  # not yet written

    def read(self) -> None:
        """Read what is available."""
        while self.open:
            try:
                block = os.read(self.descriptor, 65536)
            except BlockingIOError:
                return
            if not block:
                self.open = False
            *whole, self.rest = (self.rest + block).split(b"\n")
            for line in [*whole, *([self.rest] if not self.open and self.rest else [])]:
                self._keep(line)

    def take(self) -> list[tuple[float, str, str]]:
        """The lines since the last call, as log events."""
        lines, self.lines = self.lines, []
        return lines

    def _keep(self, line: bytes) -> None:
        text = line.rpartition(b"\r")[2].decode(errors="replace").replace("\0", "").rstrip()[:MAX_LINE]
        self.n_lines += 1
        if text and self.n_lines < MAX_LINES:
            self.lines.append((time.time(), "output", text))
        elif self.n_lines == MAX_LINES:
            self.lines.append((time.time(), "warning", f"further output is discarded (after {MAX_LINES} lines)"))
