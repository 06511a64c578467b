"""A report as one HTML file that works offline: text, tables and charts."""

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:; style-src 'unsafe-inline';
 script-src 'unsafe-inline' 'unsafe-eval'">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; line-height: 1.5; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }}
.written {{ overflow-wrap: anywhere }}
td {{ overflow-wrap: break-word }}
h4 {{ font-size: 1.5rem; margin: 2rem 0 0.5rem }}
h5 {{ font-size: 1.2rem; margin: 1.5rem 0 0.5rem }}
h6 {{ font-size: 1rem; margin: 1rem 0 0.5rem }}
.table {{ overflow-x: auto; margin: 1rem 0 }}
table {{ border-collapse: collapse; font-size: 0.85rem }}
th, td {{ border: 1px solid #ccc; padding: 0.2rem 0.5rem; text-align: left }}
.chart {{ width: 100% }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
<script type="module">{library}</script>
<script type="module">
const charts = {charts};
charts.forEach((spec, at) => vegaEmbed(`#chart-${{at}}`, spec, {{mode: "vega-lite", actions: false}}));
</script>
</body>
</html>
"""


Chart = alt.Chart | alt.LayerChart | alt.FacetChart


@dataclass(frozen=True)
class Written:
    """Safe HTML."""

    html: str


def document(title: str, blocks: Sequence[Written | pd.DataFrame | Chart]) -> bytes:
    """The blocks under a title; text in tables and charts is never interpreted as HTML or script."""
    import vl_convert  # large, so loaded on request

    body: list[str] = []
    charts: list[dict[str, Any]] = []
    for block in blocks:
        if isinstance(block, Written):
            body.append(block.html)
        elif isinstance(block, pd.DataFrame):
            body.append(f'<div class="table">{block.to_html(index=False, escape=True, border=0)}</div>')
        else:
            body.append(f'<div class="chart" id="chart-{len(charts)}"></div>')
            charts.append({**block.to_dict(), "width": "container"})
    library = vl_convert.javascript_bundle(None) if charts else ""  # type: ignore[arg-type]  # its stub knows no default
    drawn = json.dumps(charts).replace("<", "\\u003c")
    whole = library.replace("</script", "<\\/script")
    return _PAGE.format(title=html.escape(title), body="\n".join(body), library=whole, charts=drawn).encode()
