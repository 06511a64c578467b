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
    assert len(kept) == MAX_LINES and kept[-1].startswith("further output is discarded")


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
    assert lines[-1][1:] == ("warning", f"further output is discarded (after {MAX_LINES} lines)")
    os.close(writer)
    os.close(reader)
