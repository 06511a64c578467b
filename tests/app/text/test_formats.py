"""Numbers and units as people read them."""

import pytest

from app.text import formats


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(None, "–"), (0, "0 B"), (999, "999 B"), (1_240_000, "1.24 MB"), (12_400, "12.4 kB"), (999_999, "1.00 MB")],
)
def test_sizes_are_decimal_with_three_digits(n_bytes, text):
    assert formats.size(n_bytes) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0.412, "0.412 ms"), (12.44, "12.4 ms"), (124.4, "124 ms"), (1240, "1.24 s"), (0.0412, "0.0412 ms")],
)
def test_latencies_keep_three_digits(ms, text):
    assert formats.milliseconds(ms) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4 s"), (59.6, "1 min"), (200, "3 min 20 s"), (3600, "1 h"), (7500, "2 h 5 min"), (100_000, "1 d 3 h")],
)
def test_durations_have_two_units(seconds, text):
    assert formats.duration(seconds) == text


@pytest.mark.parametrize(
    ("passed", "text"), [(1, "just now"), (30, "30 seconds ago"), (61, "1 minute ago"), (7300, "2 hours ago")]
)
def test_ago_counts_whole_units(passed, text):
    assert formats.ago(1000.0, now=1000.0 + passed) == text


def test_counts_and_shares():
    assert [formats.count(n) for n in (0, 853, 12_400, 1_240_000)] == ["0", "853", "12.4 k", "1.24 M"]
    assert [formats.plural(n, "run") for n in (0, 1, 12_400)] == ["0 runs", "1 run", "12.4 k runs"]
    assert formats.percent(0.9531) == "95.3 %"
    assert formats.score(95.31, "%") == "95.3 %"
    assert formats.score(2.3104, "bits") == "2.310 bits"
    assert formats.score_change(-0.3, "%") == "−0.3 points"
    assert formats.score_change(0.0123, "bits") == "+0.012 bits"


@pytest.mark.parametrize(
    ("written", "safe"),
    [
        ("vit 2:4, rtn (8-bit)", "vit 2:4, rtn (8-bit)"),
        ("sr_ste", "sr_ste"),
        ("**bold** _slanted_", r"\*\*bold\*\* \_slanted\_"),
        ("<script>alert(1)</script>", r"\<script\>alert(1)\</script\>"),
        ("[x](javascript:alert(1))", r"\[x\](javascript:alert(1))"),
        ("![](https://elsewhere/pixel.png)", r"!\[\](https\://elsewhere/pixel.png)"),
        (":red[loud] $x^2$ `code`", r":red\[loud\] \$x^2\$ \`code\`"),
        ("a\n\n# title\n| t |", r"a \# title \| t \|"),
        ("see http://example.org and www.example.org", r"see http\://example.org and www\.example.org"),
        (":material/home: builtin:vit", r"\:material/home: builtin:vit"),
        ("a\u202egpj.exe\u2066b", "agpj.exeb"),
    ],
)
def test_what_users_write_is_no_markup(written, safe):
    assert formats.plain(written) == safe


@pytest.mark.parametrize(
    ("ratio", "text"), [(0.4, "2.50× faster"), (1.3, "1.30× slower"), (1.004, "as fast as the reference")]
)
def test_a_time_reads_as_faster_or_slower_than_its_references(ratio, text):
    assert formats.time_change(ratio) == text
