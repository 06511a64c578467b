"""Saved views: a page's settings under a name, what keeps them and the way back to them."""

PAGES = {"tradeoffs": "screens/tradeoffs.py", "runs": "screens/runs.py", "compare": "screens/compare.py"}
