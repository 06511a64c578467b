"""Saved views: a page's settings under a name, what keeps them and the way back to them."""

PAGES = {name: f"screens/{name}.py" for name in ("tradeoffs", "runs", "compare", "provenance")}
