"""Takes pictures of the playground, and prints what its pages weigh and how fast they are shown.

python -m tests.client.screenshots           all, into .artifacts/screenshots
python -m tests.client.screenshots --docs    and those of the documentation, into docs/images
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path

from PIL import Image

from mlserver_pyfunc.testing import Server
from tests.places import DOCS, EXAMPLES

from .playground.conftest import ARTIFACTS, SHOWN, chromium, gather
from .playground.test_browser import Page
from .playground.test_work import WORK

PLACE = ARTIFACTS / "screenshots"
SIZES = {
    "desktop": (1280, 1000, "light"),
    "phone": (390, 844, "light"),
    "dark": (1280, 1000, "dark"),
}
IN_DOCS = {
    "iris-desktop": "playground",
    "tabular-desktop": "playground-table",
    "picture-dark": "playground-dark",
    "coffee-phone": "playground-phone",
}
PICTURE = EXAMPLES / "picture" / "photo.jpg"
PAGES = ["playground", "docs", "models/coffee/docs"]
MEASURED = 5
FIGURE = "{name:22}{requests:9}{compressed:12,}{plain:12,}{painted:9.0f}{interactive:12.0f}"


def main() -> None:
    """Works through each function, and takes a picture of each size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", action="store_true", help="write docs/images, too")
    parser.add_argument("model", nargs="*", help="functions to show, else all and what pages weigh")
    arguments = parser.parse_args()
    PLACE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder, "models")
        models.mkdir()
        browser = chromium(Path(folder, "profile"))
        try:
            with Server(gather(models, *SHOWN), env={"MLSERVER_DEBUG": "false"}) as server:
                for model in arguments.model or sorted(WORK):
                    take(browser, server, model)
                if not arguments.model:
                    weigh(browser, server)
        finally:
            browser.quit()
    if arguments.docs:
        for name, target in IN_DOCS.items():
            shutil.copyfile(PLACE / f"{name}.png", DOCS / "images" / f"{target}.png")


def take(browser, server, model: str) -> None:
    """Fills in a form, calls, and takes a picture of each size."""
    page = Page(browser, f"{server.url}/v2/models/{model}/playground")
    page.wait(lambda: page.text("#ready") == "ready")
    for name, (width, height, scheme) in SIZES.items():
        page.resize(width, height)
        page.scheme(scheme)
        if name == "desktop":
            fill, _ = WORK[model]
            fill(page, PICTURE)
            page.call()
            if model == "iris":
                show_more(page)
        save(browser, f"{model}-{name}")
    page.assert_clean()


def show_more(page) -> None:
    """Opens a chart, and measures."""
    page.tab("probabilities", "Bars")
    page.find("#repeat").click()
    page.wait(lambda: "100 calls, median" in page.text("#latency-summary"))


def save(browser, name: str) -> None:
    """Saves what is on show in few colours, which keeps the file small."""
    browser.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    path = PLACE / f"{name}.png"
    browser.save_screenshot(str(path))
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)


def weigh(browser, server) -> None:
    """Prints bytes and milliseconds of the pages: the median of some visits, after a first one."""
    print(
        f"{'page':22}{'requests':>9}{'compressed':>12}{'plain':>12}{'paint':>9}{'interactive':>12}"
    )
    for path in [*PAGES, *(f"models/{model}/playground" for model in sorted(WORK))]:
        visits = []
        for _ in range(MEASURED + 1):
            page = Page(browser, f"{server.url}/v2/{path}")
            page.resize(1280, 1000)
            page.wait(lambda page=page: page.all(".opblock, .models, #ready.good"))
            visits.append(page.figures())
        medians = {
            key: statistics.median(visit[key] or 0 for visit in visits[1:]) for key in visits[0]
        }
        shown = {
            key: value if key in ("painted", "interactive") else int(value)
            for key, value in medians.items()
        }
        print(FIGURE.format(name=path.removeprefix("models/"), **shown))


if __name__ == "__main__":
    main()
