"""Tables as LaTeX, read by others: a parser, and pdfTeX where it is installed."""

import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from pylatexenc.latexwalker import (
    LatexCharsNode,
    LatexEnvironmentNode,
    LatexGroupNode,
    LatexMacroNode,
    LatexMathNode,
    LatexNode,
    LatexSpecialsNode,
    LatexWalker,
)

from app.exports import latex

HOSTILE = [
    r"\input{secret}",
    r"\include{secret}\write18{touch pwned}",
    r"\def\x{\x}\x",
    "100 % of $x_1^2$ & #1 {~} \\",
    '<b>"quoted"</b> `tick` [a] a--b |c|',
    "line\nbreak\ttab \x07 bell \x1b[31m",
    "−1 ± 2 × 3 → 4 · 5 – 6 ½ é ß",
    "%",
    "&",
    "\\\\",
    "[1cm] after a row's end",
    "*",
    "{",
    "}",
    "$",
    "^^41 ^^5cinput",
    "---",
    "?` !` ,, << >> ''",
    r"\end{tabular}\end{document}",
    "",
]
BEYOND_LATIN = ["数据", "дома", "🏆", "α"]
SIGNS = {"textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar", "char"}
MATH = {"times", "pm", "rightarrow", "cdot"}
DOCUMENT = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[paper=a3paper]{geometry}
\usepackage{booktabs}
\begin{document}
TABLE
\end{document}
"""


def named(names: list[str]) -> str:
    """A table whose heads and cells are these names."""
    return latex.write_table(pd.DataFrame({"name": names, HOSTILE[0]: names, "100 % & #": range(len(names))})).decode()


def parsed(text: str) -> LatexEnvironmentNode:
    """The one environment that a table is, as a strict parser reads it."""
    nodes, _, _ = LatexWalker(text, tolerant_parsing=False).get_latex_nodes()
    comment, table, *rest = nodes
    assert comment.comment.startswith(" needs ")
    assert isinstance(table, LatexEnvironmentNode) and table.environmentname == "tabular"
    assert [node.latex_verbatim().strip() for node in rest] in ([], [""])
    return table


def rows(table: LatexEnvironmentNode) -> list[list[list[LatexNode]]]:
    """A table's cells by row, each the nodes in it; rules are no cells."""
    found: list[list[list[LatexNode]]] = [[[]]]
    for node in table.nodelist:
        if isinstance(node, LatexMacroNode) and node.macroname == "\\":
            found.append([[]])
        elif isinstance(node, LatexSpecialsNode) and node.specials_chars == "&":
            found[-1].append([])
        elif not (isinstance(node, LatexMacroNode) and node.macroname.endswith("rule")):
            found[-1][-1].append(node)
    assert not "".join(node.latex_verbatim() for node in found.pop()[0]).strip()
    return found


def commands(nodes: list[LatexNode]) -> Counter[str]:
    """The commands in nodes; fails where anything but signs, texts and groups of them stands there."""
    found: Counter[str] = Counter()
    for node in nodes:
        if isinstance(node, (LatexGroupNode, LatexMathNode)):
            found += commands(node.nodelist)
        elif isinstance(node, LatexMacroNode):
            found[node.macroname] += 1
        else:
            assert isinstance(node, (LatexCharsNode, LatexSpecialsNode)), node
    return found


@pytest.mark.parametrize("names", [HOSTILE, BEYOND_LATIN])
def test_a_parser_finds_a_row_a_line_and_no_command_of_any_name(names):
    table = parsed(named(names))
    found = rows(table)
    assert [len(row) for row in found] == [3] * (len(names) + 1)
    allowed = SIGNS | MATH | {"{", "}", "$", "&", "#", "%", "_"}
    assert set(commands([node for row in found for cell in row for node in cell])) <= allowed
    rules = [node.macroname for node in table.nodelist if getattr(node, "macroname", "").endswith("rule")]
    assert rules == ["toprule", "midrule", "bottomrule"]


def test_the_parser_would_see_what_is_not_escaped():
    table = parsed(named(["x"]).replace("x &", r"\input{secret} &"))
    assert "input" in commands([node for row in rows(table) for cell in row for node in cell])


def typeset(folder: Path, text: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """What pdfTeX says of a document with this table, and the names of the files that it opened."""
    (folder / "secret.tex").write_text("what must not be read")
    (folder / "table.tex").write_text(DOCUMENT.replace("TABLE", text))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-recorder", "table.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=120)
    return done, (folder / "table.fls").read_text()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex; the parser reads the tables all the same")
def test_pdftex_sets_hostile_names_and_opens_no_file_that_they_name(tmp_path):
    done, opened = typeset(tmp_path, named(HOSTILE))
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "table.pdf").stat().st_size > 1000
    assert "secret" not in opened and not (tmp_path / "pwned").exists()
    assert "Missing character" not in (tmp_path / "table.log").read_text(errors="replace")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_pdftex_would_open_what_is_not_escaped(tmp_path):
    _, opened = typeset(tmp_path, named(["x"]).replace("x &", r"\input{secret} &"))
    assert "secret.tex" in opened
