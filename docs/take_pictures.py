"""Pictures of the pages of a running board, light and dark, as docs/images keeps them.

    python -m docs.take_pictures http://127.0.0.1:8501 docs/images/demonstration --run 7 --compare 1,2,5,7 [--report 1]

The run and those that are compared are the board's own; a picture reaches as far as its page does.
"""

import argparse
import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tests import chromium

WIDTH, TALLEST = 1280, 1700
COLOURS = 256  # of a palette, chosen so that rare ones stay: a third of the bytes
SETTLED = 3000  # milliseconds after which charts are drawn


def addresses(run: str, compared: str, report: str) -> dict[str, str]:
    """Pages by the names of their pictures."""
    pages = {
        "submit": "submit",
        "queue": "queue",
        "runs": "runs",
        "run": f"run?run={run}",
        "layers": f"run?run={run}&tab=Layers",
        "tradeoffs": "",
        "parallel": "?chart=parallel+coordinates",
        "limits": "?most_mb=0.5",
        "compare": f"compare?runs={compared}",
        "provenance": f"provenance?of={compared}",
        "architectures": "architectures",
        "techniques": "techniques",
        "system": "system",
    }
    return pages | ({"report": f"reports?report={report}"} if report else {})


def take(page: Page, address: str) -> Image.Image:
    """The page as far as it reaches, at most TALLEST pixels."""
    page.set_viewport_size({"width": WIDTH, "height": 700})
    page.goto(address)
    page.wait_for_selector('[data-testid="stMain"] h1')
    page.wait_for_timeout(SETTLED)
    reach = page.evaluate("""() => {
        const main = document.querySelector('[data-testid="stMainBlockContainer"]');
        const bottoms = [...main.querySelectorAll('*')].map((element) => element.getBoundingClientRect().bottom);
        return Math.max(700, ...bottoms.filter((bottom) => bottom < 1e5)) + 30;
    }""")
    page.set_viewport_size({"width": WIDTH, "height": min(int(reach), TALLEST)})
    page.wait_for_timeout(SETTLED / 2)
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def main() -> None:
    """Take them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--run", required=True)
    parser.add_argument("--compare", required=True, metavar="RUNS")
    parser.add_argument("--report", default="")
    parser.add_argument("--only", nargs="+")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    pages = addresses(arguments.run, arguments.compare, arguments.report)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium.find(), args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        for scheme in ("light", "dark"):
            page = browser.new_page(color_scheme=scheme)  # type: ignore[arg-type]
            for name in arguments.only or pages:
                picture = take(page, f"{arguments.url}/{pages[name]}").quantize(
                    COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
                )
                picture.save(arguments.folder / f"{name}-{scheme}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
