"""A chart as one HTML file that works offline, including Vega and the data."""

import html
import json

import altair as alt

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:; style-src 'unsafe-inline';
 script-src 'unsafe-inline' 'unsafe-eval'">
<title>{title}</title>
<style>body {{ font-family: sans-serif; margin: 2rem }} #chart {{ width: 100% }}</style>
</head>
<body>
<h1>{title}</h1>
<div id="chart"></div>
<script type="module">{library}</script>
<script type="module">
vegaEmbed("#chart", {spec}, {{mode: "vega-lite", actions: {{source: false, compiled: false, editor: false}}}});
</script>
</body>
</html>
"""


def write_page(chart: alt.LayerChart | alt.FacetChart, title: str) -> bytes:
    """The chart under a title, as wide as the window unless it has panels.

    No text is interpreted as HTML or script.
    """
    import vl_convert  # large, so loaded on request

    width = {} if isinstance(chart, alt.FacetChart) else {"width": "container"}
    spec = json.dumps({**chart.to_dict(), **width}).replace("<", "\\u003c")
    library = vl_convert.javascript_bundle(None)  # type: ignore[arg-type]  # its stub knows no default
    whole = library.replace("</script", "<\\/script")
    return _PAGE.format(title=html.escape(title), library=whole, spec=spec).encode()
