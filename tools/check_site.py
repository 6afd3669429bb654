"""Does the built site load anything from elsewhere? ``python tools/check_site.py DIR``

Sphinx does not ask this. It checks the links between pages itself: the build treats a missing target as an error
(-n -W), and ``make links`` runs its linkcheck, which follows the links to other sites.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
POINTERS = {"canonical", "next", "prev", "index", "search"}  # <link>s that name a page and load nothing


class Page(HTMLParser):
    """What one page loads."""

    def __init__(self, path):
        super().__init__()
        self.loads = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if (url := attrs.get(LOADS.get(tag, ""))) and attrs.get("rel") not in POINTERS:
            self.loads.append(url)


def elsewhere(url):
    return (bool(urlsplit(url).scheme) or url.startswith("//")) and not url.startswith("data:")


def problems(root):
    pages = sorted(Path(root).rglob("*.html"))
    if not pages:
        yield f"{root} has no pages"
    for path in pages:
        yield from (f"{path} loads {url}" for url in Page(path).loads if elsewhere(url))
    for sheet in sorted(Path(root).rglob("*.css")):
        if "url(http" in (text := sheet.read_text("utf-8")) or "@import" in text:
            yield f"{sheet} loads from elsewhere"


if __name__ == "__main__":
    found = list(problems(sys.argv[1]))
    print(*found, f"{len(found)} problems", sep="\n")
    sys.exit(bool(found))
