"""Pictures of the running demo: `make demo`, then `make screenshots`.

By default makes docs/boards.png, the picture in the README. With --all FOLDER it takes every page for a look: light and
dark, 390 and 1280 pixels wide, English and German.
"""

import argparse
import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parent.parent
VAR = Path(os.environ.get("ANOMED_VAR", ROOT / "var"))
SLUG = "nhanes-diabetes"
TEAM = "straight.liners@demo.invalid"
BROWSERS = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
PAGES = {
    "home": "/",
    "challenges": "/challenges/",
    "overview": f"/challenges/{SLUG}/",
    "data": f"/challenges/{SLUG}/data/",
    "rules": f"/challenges/{SLUG}/rules/",
    "boards": f"/challenges/{SLUG}/boards/",
    "matrix": f"/challenges/{SLUG}/matrix/",
    "own": f"/challenges/{SLUG}/submissions/",
    "submit": f"/challenges/{SLUG}/submit/",
    "profile": "/profile/",
    "docs": "/docs/",
    "participants": "/docs/participants/",
}
PUBLIC = {"sign-in": "/accounts/login/", "sign-up": "/accounts/signup/", "join": f"/challenges/{SLUG}/join/"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", default="http://127.0.0.1:8000")
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="take every page, into this folder")
    arguments = parser.parse_args()
    with chromium() as browser:
        if arguments.all is None:
            page = open_page(browser, width=1280, scheme="light", language="en")
            take(page, arguments.server + PAGES["boards"], ROOT / "docs" / "boards.png")
        else:
            take_all(browser, arguments.server, arguments.all)


@contextmanager
def chromium() -> Iterator[Browser]:
    path = next(path for path in BROWSERS if Path(path).exists())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def open_page(browser: Browser, *, width: int, scheme: str, language: str) -> Page:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, locale=language, reduced_motion="reduce"
    )
    return context.new_page()


def take_all(browser: Browser, server: str, folder: Path) -> None:
    """Every page in every look; signed in as a team of the demo where a page needs somebody."""
    folder.mkdir(parents=True, exist_ok=True)
    password = json.loads((VAR / "demo.json").read_text())["password"]
    for width, scheme, language in itertools.product((390, 1280), ("light", "dark"), ("en", "de")):
        page = open_page(browser, width=width, scheme=scheme, language=language)
        look = f"{width}-{scheme}-{language}"
        for name, path in PUBLIC.items():
            take(page, server + path, folder / f"{name}-{look}.png")
        page.goto(f"{server}/accounts/login/")
        page.fill("input[name=login]", TEAM)
        page.fill("input[name=password]", password)
        page.click("main button[type=submit]")
        for name, path in PAGES.items():
            take(page, server + path, folder / f"{name}-{look}.png")
        page.goto(server + PAGES["own"])
        entry = page.locator("main a[href^='/submissions/']").first.get_attribute("href")
        take(page, f"{server}{entry}", folder / f"entry-{look}.png")


def take(page: Page, url: str, target: Path) -> None:
    page.goto(url)
    page.wait_for_timeout(600)  # the chart draws itself
    page.screenshot(path=target, full_page=True)


if __name__ == "__main__":
    main()
