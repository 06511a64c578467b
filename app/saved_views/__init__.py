"""Saved views: a page's settings under a name, what keeps them and the way back to them."""

PAGES = {"tradeoffs": "./", "runs": "runs", "compare": "compare", "provenance": "provenance"}  # and their addresses
