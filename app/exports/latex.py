"""Tables as LaTeX, safe for any text."""

import re
from collections.abc import Iterable

import pandas as pd

_WRITTEN = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\char34{}", "`": "{`}", "'": "{'}",
    "[": "{[}", "]": "{]}", "-": "{-}",
    "×": r"$\times$", "−": "$-$", "±": r"$\pm$", "→": r"$\rightarrow$", "·": r"$\cdot$", "–": "{--}",
}  # fmt: skip
_SPECIAL = re.compile("|".join(map(re.escape, _WRITTEN)))
_HEAD = r"""% needs \usepackage{booktabs}; for names beyond Latin letters use LuaLaTeX or XeLaTeX
\begin{tabular}{COLUMNS}
\toprule
"""


def escape(text: str) -> str:
    """A text escaped for LaTeX, on one line."""
    plain = "".join(c for c in " ".join(text.split()) if c.isprintable())
    return _SPECIAL.sub(lambda found: _WRITTEN[found[0]], plain)


def write_table(rows: pd.DataFrame) -> bytes:
    """The table with booktabs rules and escaped text."""
    lines = [
        _line(map(str, rows.columns)),
        r"\midrule",
        *(_line(map(str, row)) for row in rows.itertuples(index=False)),
    ]
    body = "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])
    return (_HEAD.replace("COLUMNS", "l" * len(rows.columns)) + body + "\n").encode()


def _line(cells: Iterable[str]) -> str:
    return " & ".join(map(escape, cells)) + r" \\"
