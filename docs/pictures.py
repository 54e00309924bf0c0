"""Make the README's pictures from a finished default run: `python docs/pictures.py results/report.html`.

It needs the `test` extra and Chromium. The pictures are the first page and the strongest feature for the requests, as a
reader sees them, with as many colours as they need. The requests are generated, so no one else's texts are in a picture.
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
SIZE = {"width": 1180, "height": 860}
COLOURS = 128
FIRST = '.explorer[id$="requests"] .listing tbody th a'


def main(report: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(viewport=SIZE)
        page.goto(report.resolve().as_uri())
        save(page.screenshot(), "report")
        feature = page.locator(FIRST).first.get_attribute("href")
        if feature is None:
            raise SystemExit(f"{report}: there is no feature to show. Mend: make it with explorer.features above 0.")
        page.goto(report.resolve().as_uri() + feature)
        save(page.screenshot(), "explorer")
        browser.close()


def save(taken: bytes, name: str) -> None:
    picture = Image.open(io.BytesIO(taken)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    picture.save(HERE / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
