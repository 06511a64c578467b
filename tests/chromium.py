"""Where a Chromium is that the browser tests can drive.

`python tests/chromium.py` prints its path, or exits with 1: the Makefile then tries to fetch one.
"""

import os
import shutil
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WHY_NOT = (
    "no Chromium: set SLIMBOARD_CHROMIUM to its path, install your system's `chromium` package, "
    "or run `.venv/bin/playwright install chromium`"
)


def find() -> str | None:
    """The path of a Chromium: what SLIMBOARD_CHROMIUM names, the system's, or the one that Playwright fetched."""
    if named := os.environ.get("SLIMBOARD_CHROMIUM"):
        return named
    for name in NAMES:
        if path := shutil.which(name):
            return path
    return _of_playwright()


def _of_playwright() -> str | None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


if __name__ == "__main__":
    found = find()
    sys.stdout.write(f"{found or WHY_NOT}\n")
    sys.exit(0 if found else 1)
