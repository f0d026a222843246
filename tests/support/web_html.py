"""Reads a page of the web as strictly as a browser would be lenient."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Final
from urllib.parse import urlsplit

VOID: Final = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}
ADDRESSES: Final = ("href", "src", "action", "formaction", "poster", "data-events")
REFERENCES: Final = ("for", "aria-labelledby", "aria-describedby", "aria-controls")


@dataclass
class Page:
    """What stands in a page. `wrong` says what should not be so."""

    text: str = ""
    title: str = ""
    language: str = ""
    links: list[str] = field(default_factory=list)
    """Addresses of <a>."""
    resources: list[str] = field(default_factory=list)
    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def all(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        """Attributes of the elements with this tag and these attributes (`class_`: one of its classes)."""
        wanted_class = attributes.pop("class_", "")
        wanted = {name.replace("_", "-"): value for name, value in attributes.items()}
        return [
            found
            for name, found in self.tags
            if name == tag
            and wanted.items() <= found.items()
            and (not wanted_class or wanted_class in found.get("class", "").split())
        ]


def read(text: str) -> Page:
    """The page, with everything that is wrong in it."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    page = reader.page
    page.wrong += [f"<{tag}> is never closed" for tag in reader.open]
    _check(page)
    return page


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Page()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._element(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._element(tag, attrs)  # as in SVG

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.page.wrong.append(f"</{tag}> at {self.getpos()} closes something else")

    def handle_data(self, data: str) -> None:
        self.page.text += data
        if self.open[-1:] == ["title"] and "svg" not in self.open:
            self.page.title += data

    def unknown_decl(self, data: str) -> None:
        self.page.wrong.append(f"what is this: {data[:40]}")

    def _element(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if len(found) != len(attrs):
            self.page.wrong.append(f"<{tag}> says an attribute twice")
        self.page.tags.append((tag, found))
        if tag == "html":
            self.page.language = found.get("lang", "")
        for name in ADDRESSES:
            if name in found:
                (self.page.links if tag == "a" else self.page.resources).append(found[name])


def _check(page: Page) -> None:
    wrong = page.wrong
    ids = [found["id"] for _, found in page.tags if "id" in found]
    wrong += [f"the id {one} stands twice" for one in {one for one in ids if ids.count(one) > 1}]
    for tag, found in page.tags:
        wrong += [f"<{tag}> has {name}" for name in found if name == "style" or name.startswith("on")]
        named = " ".join(found[name] for name in REFERENCES if name in found).split()
        wrong += [f"<{tag}> names #{one}, which is not there" for one in named if one not in ids]
        if tag in ("input", "select", "textarea") and found.get("type") != "hidden":
            labelled = any(other.get("for") == found.get("id") for other in page.all("label"))
            wrong += [] if labelled or "aria-label" in found else [f"{found} has no label"]
        if (tag == "script" and "src" not in found) or tag == "style":
            wrong.append(f"<{tag}> stands in the page")
        if tag == "script" and found.get("type") != "module" and "defer" not in found:
            wrong.append("a script holds the page up")
    wrong += [f"foreign: {one}" for one in page.resources + page.links if not _own(one)]
    if len(page.all("h1")) != 1:
        wrong.append(f"{len(page.all('h1'))} h1")
    wrong += [f"no {name}" for name in ("main", "title", "html") if not page.all(name)]


def _own(address: str) -> bool:
    parts = urlsplit(address)
    return not parts.scheme and not parts.netloc and not address.startswith(("//", "/\\"))
