"""Do all links within the built site lead somewhere, does it load nothing from elsewhere, and has every figure a
caption and a text for those who do not see it? ``check_site.py DIR``

Sphinx checks the links that it makes (-n -W), and ``make links`` those to other sites. This reads the pages as a
browser does, links in raw HTML, in templates and in executed notebooks among them.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
POINTERS = {"canonical", "next", "prev", "index", "search"}  # <link>s that name a page and load nothing


class Page(HTMLParser):
    """What one page links to, what it loads, and the anchors it offers."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.anchors, self.bare = [], [], {"", "top"}, []
        self.figures = []  # for each open <figure>: its images, and whether it has a caption
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.handle_figures(tag, attrs)
        self.anchors.update(attrs[key] for key in ("id", "name") if attrs.get(key))
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        elif (url := attrs.get(LOADS.get(tag, ""))) and attrs.get("rel") not in POINTERS:
            self.loads.append(url)


    def handle_figures(self, tag, attrs):
        """Note pictures without a text, or with a file's name for one, and pictures of _images/ without a caption."""
        if tag == "figure":
            self.figures.append([[], False])
        elif tag == "figcaption" and self.figures:
            self.figures[-1][1] = True
        elif tag == "img":
            name, text = attrs.get("src", ""), attrs.get("alt", "")
            if not text or "_images/" in name and len(text.split()) < 3:
                self.bare.append(f"{name}: no alternative text")
            if self.figures:
                self.figures[-1][0].append(name)
            elif "_images/" in name:
                self.bare.append(f"{name}: no caption")

    def handle_endtag(self, tag):
        if tag == "figure":
            images, has_caption = self.figures.pop()
            self.bare += [] if has_caption else [f"{name}: no caption" for name in images]


def elsewhere(url):
    return bool(urlsplit(url).scheme) or url.startswith("//")


def problems(root):
    pages = {path.resolve(): Page(path) for path in sorted(Path(root).rglob("*.html"))}
    if not pages:
        yield f"{root}: no pages"
    for path, page in pages.items():
        yield from (f"{path}: loads {u}" for u in page.loads if elsewhere(u) and not u.startswith("data:"))
        yield from (f"{path}: {what}" for what in page.bare)
        for url in page.loads + page.links:
            if elsewhere(url):
                continue
            file, anchor = urldefrag(url)
            target = (path.parent / unquote(urlsplit(file).path)).resolve() if file else path
            if not target.exists():
                yield f"{path}: no {url}"
            elif target in pages and unquote(anchor) not in pages[target].anchors:
                yield f"{path}: no anchor {url}"
    for sheet in sorted(Path(root).rglob("*.css")):
        if "url(http" in (text := sheet.read_text("utf-8")) or "@import" in text:
            yield f"{sheet}: loads from elsewhere"


if __name__ == "__main__":
    found = list(problems(sys.argv[1]))
    print(*found, f"{len(found)} problems", sep="\n")
    sys.exit(bool(found))
