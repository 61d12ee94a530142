"""Looks at the built site in headless Chromium: ``nox -s site``.

Every page is opened at the width of a desktop and of a phone. It fails on an error or a warning in the console, on
anything that is fetched from elsewhere, on a link within the site that leads nowhere, on a picture that does not show,
on a page that has to be scrolled sideways, on code that is cut off and contents that are hidden on a desktop, on a
drawing that is too small to be read, and on a search that does not find the page that it should.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urldefrag

from check_search import questions
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars"
)
MISSING = """There is no Chromium with its driver here. On Debian, as root:

    apt-get update && apt-get install -y chromium chromium-driver

Elsewhere: install Chromium or Chrome and the chromedriver of the same version, so that `chromedriver` and
`chromium`, `chromium-browser` or `google-chrome` are on the PATH."""

LOOK = """
const links = [...document.querySelectorAll('a[href]')].map(a => a.href);
const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
const fetched = performance.getEntriesByType('resource').map(e => e.name);
const pictures = [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src);
const wide = document.documentElement.scrollWidth - window.innerWidth;
const desktop = window.innerWidth > 1000;
const cut = [...document.querySelectorAll('pre')].filter(e => desktop && e.scrollWidth > e.clientWidth);
const lines = cut.map(e => e.textContent.split('\\n').sort((a, b) => b.length - a.length)[0]);
const chapters = document.querySelectorAll('article h2').length;
const toc = document.querySelector('.toc-drawer');
const hidden = desktop && chapters > 3 && !(toc && toc.getBoundingClientRect().left < window.innerWidth - 100);
const svgs = [...document.querySelectorAll('figure.drawing svg')];
const small = svgs.filter(e => 11 * e.clientWidth / e.viewBox.baseVal.width < 10).length;
return {links, ids, fetched, pictures, wide, lines, hidden, small};
"""

FIRST = 6
"""How many results a user looks at."""

SEARCHED = "return !!document.querySelector('#search-results .search-summary')?.innerText;"

RESULTS = "return [...document.querySelectorAll('#search-results ul.search > li > a')].map(a => a.href);"


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """Serve a directory, and yield its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(directory)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def browser() -> Iterator[Any]:
    """Start Chromium with a fresh profile, and yield what drives it."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    chromedriver = shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        sys.exit(MISSING)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in (*FLAGS.split(), f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options, webdriver.ChromeService(chromedriver))
        try:
            yield driver
        finally:
            driver.quit()


def open_page(driver: Any, url: str, width: str, scheme: str = "light") -> None:
    """Open a page at a width, in light or dark."""
    wide, high = WIDTHS[width]
    metrics = {"width": wide, "height": high, "deviceScaleFactor": 1, "mobile": width == "phone"}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    driver.get(url)
    WebDriverWait(driver, 10).until(lambda driver: driver.execute_script("return document.readyState") == "complete")


def check(driver: Any, site: Path, base: str) -> list[str]:
    """Return the problems of the site, one per line."""
    faults: list[str] = []
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html") if "_static" not in path.parts)
    ids: dict[str, set[str]] = {}
    links: list[tuple[str, str]] = []
    for page in pages:
        for width in WIDTHS:
            open_page(driver, base + page, width)
            seen = driver.execute_script(LOOK)
            ids.setdefault(page, set()).update(seen["ids"])
            links += [(page, link) for link in seen["links"]]
            faults += [f"{page}: console: {entry['message']}" for entry in driver.get_log("browser")]
            faults += [f"{page}: fetched from elsewhere: {url}" for url in seen["fetched"] if not url.startswith(base)]
            faults += [f"{page}: a picture does not show: {url}" for url in seen["pictures"]]
            if seen["wide"] > 0:
                faults.append(f"{page}: {seen['wide']} pixels too wide for a {width}")
            faults += [f"{page}: code is cut off: {line}" for line in seen["lines"]]
            if seen["hidden"]:
                faults.append(f"{page}: the contents are hidden on a {width}")
            if seen["small"]:
                faults.append(f"{page}: {seen['small']} drawings are too small on a {width}")
    for page, link in sorted(set(links)):
        url, fragment = urldefrag(link)
        if not url.startswith(base):
            continue
        target = unquote(url.removeprefix(base).partition("?")[0]) or "index.html"
        if not (site / target).is_file():
            faults.append(f"{page}: a link leads nowhere: {target}")
        elif fragment and unquote(fragment) not in ids.get(target, set()):
            faults.append(f"{page}: a link leads nowhere: {target}#{fragment}")
    print(f"{len(pages)} pages at {len(WIDTHS)} widths, {len(set(links))} links, {len(faults)} faults")
    return faults


def search(driver: Any, base: str) -> list[str]:
    """Return which queries do not have their page among the first results."""
    faults: list[str] = []
    for query, page in questions():
        driver.get(f"{base}search.html?q={quote(query)}")
        WebDriverWait(driver, 10).until(lambda driver: driver.execute_script(SEARCHED))
        found = driver.execute_script(RESULTS)
        pages = list(dict.fromkeys(unquote(urldefrag(url)[0]).removeprefix(base).partition("?")[0] for url in found))
        if f"{page}.html" not in pages[:FIRST]:
            faults.append(f"search for {query!r}: {page} is not among {', '.join(pages[:FIRST])}")
    return faults


def take_pictures(driver: Any, base: str, pages: list[str], directory: Path) -> None:
    """Store pictures of pages, at each width, in light and dark."""
    directory.mkdir(parents=True, exist_ok=True)
    for page in pages:
        for width in WIDTHS:
            for scheme in ("light", "dark"):
                open_page(driver, base + page, width, scheme)
                path = directory / f"{page.removesuffix('.html').replace('/', '-')}-{width}-{scheme}.png"
                high = min(driver.execute_script("return document.documentElement.scrollHeight"), 16_000)
                metrics = {"width": WIDTHS[width][0], "height": high, "deviceScaleFactor": 1}
                driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {**metrics, "mobile": width == "phone"})
                driver.save_screenshot(str(path))


def main() -> int:
    """Look at the site.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description="Look at the built site in headless Chromium.")
    parser.add_argument("site", type=Path, help="the directory of the built site")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="store pictures there instead of checking")
    parser.add_argument("--pages", nargs="+", default=["index.html"], metavar="PAGE", help="of which pages")
    options = parser.parse_args()
    with browser() as driver, served(options.site) as base:
        if options.pictures is not None:
            take_pictures(driver, base, options.pages, options.pictures)
            return 0
        faults = [*check(driver, options.site, base), *search(driver, base)]
    print(*faults, sep="\n", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
