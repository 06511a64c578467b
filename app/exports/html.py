"""A chart as one HTML file that needs no network: Vega and the data lie in it."""

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


def page(chart: alt.LayerChart | alt.FacetChart, title: str) -> bytes:
    """The chart, as wide as the window unless it has panels, under a title.

    No text of either is taken for HTML or a script.
    """
    import vl_convert  # large: loaded when someone asks

    width = {} if isinstance(chart, alt.FacetChart) else {"width": "container"}
    spec = json.dumps({**chart.to_dict(), **width}).replace("<", "\\u003c")
    library = vl_convert.javascript_bundle(None)  # type: ignore[arg-type]  # its stub knows no default
    whole = library.replace("</script", "<\\/script")
    return _PAGE.format(title=html.escape(title), library=whole, spec=spec).encode()
