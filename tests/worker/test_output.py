import os

from worker.output import MAX_LINES, Output


def lines(printed: bytes) -> list[str]:
    read, write = os.pipe()
    output = Output(read)
    try:
        os.write(write, printed)
        os.close(write)
        output.read()
        return [text for _, _, text in output.take()]
    finally:
        os.close(read)


def test_what_a_process_prints_becomes_lines_that_every_store_takes():
    assert lines(b"one\n 5 %\r 50 %\r100 %\na\0b\xff\n\nlast") == ["one", "100 %", "ab\ufffd", "last"]


def test_a_flood_ends_with_one_line_that_says_so():
    kept = lines(b"x\n" * (MAX_LINES + 10))
    assert len(kept) == MAX_LINES and kept[-1].startswith("further output is not kept")
