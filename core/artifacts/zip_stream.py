"""What a zip is written to while it is sent: nothing of it lies on disk, and little in memory. Loads no torch."""


class Pipe:
    """A file that can only be written to; what was written is taken away."""

    def __init__(self) -> None:
        self.waiting: list[bytes] = []

    def write(self, data: bytes, /) -> int:
        """Keep it until it is taken."""
        self.waiting.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is open."""

    def take(self) -> bytes:
        """What was written since the last time."""
        data, self.waiting = b"".join(self.waiting), []
        return data
