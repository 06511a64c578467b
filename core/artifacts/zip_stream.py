"""The target of a zip that is sent while it is written: nothing on disk, and little in memory. Loads no torch."""


class Pipe:
    """A write-only file whose contents are taken as they are written."""

    def __init__(self) -> None:
        self.waiting: list[bytes] = []

    def write(self, data: bytes, /) -> int:
        """Keep it until it is taken."""
        self.waiting.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing: nothing is buffered."""

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def take(self) -> bytes:
        """What was written since the last call."""
        data, self.waiting = b"".join(self.waiting), []
        return data
