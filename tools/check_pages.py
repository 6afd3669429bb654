"""Look at every page of the built site in headless Chromium: ``check_pages.py DIR``

On a screen of 1280 and on a phone of 390 pixels: no error in the console, nothing loaded from elsewhere, no page wider
than the screen, and no serious or critical violation that axe finds. The search finds words, and the playground moves.
Where there is no Chromium or no playwright (extra `browser`), this says so and checks nothing.
"""

import functools
import shutil
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tqdm import tqdm

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTHS = {1280: "light", 390: "dark"}
WORDS = ("rho", "momentum")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def serve(root):
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=root))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}/"


def violations(axe, page):
    """Yield what axe finds that is serious or critical, a line for each rule, with the first place."""
    for found in axe.run(page).response["violations"]:
        if found["impact"] in ("serious", "critical"):
            place = found["nodes"][0]["target"][0]
            yield f"{found['id']}: {len(found['nodes'])} places, such as {place}"


def looked_at(axe, page, here, name):
    """Return the problems of the page `name` at the width that `page` has."""
    noticed = []
    hear = lambda message: noticed.append(f"console: {message.text}") if message.type == "error" else None
    ours = (here, "data:", "blob:")
    seen = lambda request: None if request.url.startswith(ours) else noticed.append(f"loads {request.url}")
    thrown = lambda error: noticed.append(f"error: {error}")
    listeners = {"console": hear, "request": seen, "pageerror": thrown}
    for event, listener in listeners.items():
        page.on(event, listener)
    page.goto(here + name, wait_until="networkidle")
    wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    for event, listener in listeners.items():
        page.remove_listener(event, listener)
    return noticed + ([f"is {wide} pixels too wide"] if wide > 0 else []) + list(violations(axe, page))


def searched(page, here):
    for word in WORDS:
        page.goto(f"{here}search.html?q={word}")
        try:
            page.wait_for_selector("#search-results li", timeout=20_000)
        except Exception as error:  # whatever playwright calls it
            yield f"search: nothing found for {word} ({type(error).__name__})"


def played(page, here):
    """Move a slider with the keyboard: the summary that screen readers hear and the drawn path must follow."""
    page.goto(f"{here}playground.html")
    state = lambda: page.evaluate(
        "[...document.querySelectorAll('.playground .summary, .playground .curve')]"
        ".map((x) => x.getAttribute('d') ?? x.textContent)"
    )
    if not (before := state()):
        yield "playground: there is none"
        return
    page.locator("input[id$='-eps']").focus()
    page.keyboard.press("ArrowRight")
    after = state()
    if before[0] == after[0] or before[-1] == after[-1]:
        yield "playground: it does not move"


def problems(root, browser):
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    names = sorted(path.relative_to(root).as_posix() for path in Path(root).rglob("*.html"))
    here, axe = serve(root), Axe()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        for width, scheme in WIDTHS.items():
            page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            for name in tqdm(names, desc=f"{width} pixels, {scheme}", leave=False):
                yield from (f"{name} at {width}: {problem}" for problem in looked_at(axe, page, here, name))
            yield from searched(page, here)
            yield from played(page, here)
        chromium.close()


def main(root):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    try:
        import axe_playwright_python  # noqa: F401  it brings playwright
    except ImportError:
        browser = None
    if not browser:
        print("pages not looked at: that takes Chromium and pip install '.[browser]'")
        return
    found = list(problems(root, browser))
    print(*found, f"{len(found)} problems on pages in {Path(browser).name}", sep="\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main(sys.argv[1])
