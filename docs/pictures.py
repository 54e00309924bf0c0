"""Make the README's pictures from a finished default run: `python docs/pictures.py results/report.html`.

It needs the `test` extra and Chromium. The pictures are the first page and, of the features that the requests are told by,
the one whose activity differs most between the labels, as a reader sees them, with as many colours as they need. The requests
are generated, so no one else's texts are in a picture.
"""

import io
import json
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
WIDTH, FIRST_PAGE, FEATURE = 1180, 860, 1320
COLOURS = 128
TASK = "demo-large/requests"


def main(report: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        for name, place, height in (("report", "", FIRST_PAGE), ("explorer", telling(report.parent), FEATURE)):
            page = browser.new_page(viewport={"width": WIDTH, "height": height})
            page.goto(report.resolve().as_uri() + place)
            save(page.screenshot(), name)
        browser.close()


def telling(results: Path) -> str:
    """The place in the report of the feature that is active in the most different shares of the labels' examples."""
    features = json.loads((results / f"explorer/{TASK}.json").read_text(encoding="utf-8"))["features"]
    if not features:
        raise SystemExit(f"{results}: there is no feature to show. Mend: make it with explorer.features above 0.")
    found = max(features, key=lambda feature: max(feature["rates"]["label"]) - min(feature["rates"]["label"]))
    return f"#explore.{TASK.replace('/', '.')}/feature/{found['feature']}"


def save(taken: bytes, name: str) -> None:
    picture = Image.open(io.BytesIO(taken)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    picture.save(HERE / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
