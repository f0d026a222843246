"""The pages of docs/ as HTML: Markdown in, headings with anchors and a table of contents out.

They are ours and travel with the code (`web/manual` is docs/), so they are rendered once and kept. HTML in
them stays text all the same, and links lead to pages of ours or nowhere.
"""

from __future__ import annotations

import functools
import posixpath
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

FOLDER: Final = Path(__file__).parent / "manual"
FIRST: Final = "README"
"""Of a folder; its address is the folder's."""
DEEPEST: Final = 3
"""Headings below the third level are in no table of contents."""
UNBROKEN: Final = 28
"""Characters of code that fit on a line of any phone."""
NOTE: Final = re.compile(r"\A<!--.*?-->\s*", re.DOTALL)
SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s")

CodeBlock = Callable[[str], str]
"""A block of code -> its HTML."""


@dataclass(frozen=True)
class Heading:
    level: int
    text: str
    anchor: str


@dataclass(frozen=True)
class Manual:
    """One page, in one language."""

    name: str
    language: str
    title: str
    summary: str
    body: Markup
    contents: tuple[Heading, ...]


@functools.cache
def names() -> frozenset[str]:
    """What can be asked for: "caller", "cli/run", "cli" for the first page of a folder."""
    found = (file.relative_to(FOLDER) for file in FOLDER.rglob("*.md"))
    return frozenset(name_of(path.as_posix()) for path in found if path.parts[0] != "pt")


def name_of(path: str) -> str:
    """Of a file below docs/, in whatever language."""
    name = path.removeprefix("pt/").removesuffix(".md")
    return posixpath.dirname(name) if posixpath.basename(name) == FIRST else name


def read(name: str, language: str) -> tuple[str, str]:
    """The text of one of `names()` and the language it is in: English where there is none in the other."""
    for folder, spoken in ((FOLDER / language, language), (FOLDER, "en")):
        for file in (folder / f"{name}.md", folder / name / f"{FIRST}.md"):
            if file.is_file():
                return NOTE.sub("", file.read_text(encoding="utf-8")), spoken
    raise KeyError(name)


def rendered(name: str, language: str, code: CodeBlock) -> Manual:
    text, spoken = read(name, language)
    title, tokens = _without_title(_parser().parse(text))
    english = _anchored(_parser().parse(read(name, "en")[0])[3:]) if spoken != "en" else ()
    contents = [one for one in _anchored(tokens, english) if one.level <= DEEPEST]
    folder = name if (FOLDER / name).is_dir() else posixpath.dirname(name)
    for token in tokens:
        if token.children:
            token.children = _linked(token.children, folder)
            _kept_whole(token.children)
    body = "".join(_drawn(_tables(tokens), code))
    return Manual(name, spoken, title, _summary(tokens), Markup(body), tuple(contents))


@functools.cache
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _drawn(tokens: Sequence[Token], code: CodeBlock) -> list[str]:
    """Code by `code`, the rest by the library."""
    parser, parts, waiting = _parser(), [], list[Token]()
    for token in tokens:
        if token.type not in ("fence", "code_block"):
            waiting.append(token)
            continue
        parts += [parser.renderer.render(waiting, parser.options, {}), code(token.content.rstrip("\n"))]
        waiting = []
    return [*parts, parser.renderer.render(waiting, parser.options, {})]


def _without_title(tokens: list[Token]) -> tuple[str, list[Token]]:
    """Every page begins with a heading of the first level."""
    assert [token.tag for token in tokens[:3]] == ["h1", "", "h1"], "a page begins with its title"
    return plain(tokens[1]), tokens[3:]


def _anchored(tokens: Sequence[Token], english: Sequence[Heading] = ()) -> tuple[Heading, ...]:
    """Gives the headings their anchors; those of a translation have the English ones, too, for pages that
    lead there and are not translated."""
    found, taken = list[Heading](), dict[str, int]()
    for at, token in enumerate(tokens):
        if token.type != "heading_open":
            continue
        inline = tokens[at + 1]
        text = plain(inline)
        anchor = slug(text)
        taken[anchor] = taken.get(anchor, -1) + 1
        anchor += f"-{taken[anchor]}" if taken[anchor] else ""
        token.attrs["id"] = anchor
        twin = english[len(found)].anchor if len(found) < len(english) else anchor
        inline.children = [*_twin(twin, anchor), *(inline.children or []), *_permalink(anchor)]
        found.append(Heading(int(token.tag[1]), text, anchor))
    return tuple(found)


def _twin(twin: str, anchor: str) -> list[Token]:
    if twin == anchor:
        return []
    return [Token("span_open", "span", 1, attrs={"id": twin}), Token("span_close", "span", -1)]


def _permalink(anchor: str) -> list[Token]:
    """For who wants to point at a section; screen readers have the headings themselves."""
    attrs: dict[str, str | int | float] = {
        "class": "anchor", "href": f"#{anchor}", "aria-hidden": "true", "tabindex": "-1"
    }  # fmt: skip
    return [
        Token("link_open", "a", 1, attrs=attrs),
        Token("text", "", 0, content="#"),
        Token("link_close", "a", -1),
    ]


def slug(text: str) -> str:
    """The anchor of a heading, as the forges make it, so that links in docs/ work there and here."""
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def plain(inline: Token) -> str:
    return "".join(child.content for child in inline.children or [] if child.type in ("text", "code_inline"))


def _linked(children: Sequence[Token], folder: str) -> list[Token]:
    """Links to pages of docs/ become ours; what leads elsewhere in the sources stays as words."""
    kept, dropped = list[Token](), list[bool]()
    for token in children:
        if token.type == "link_open" and "class" not in token.attrs:
            target = own_address(str(token.attrs.get("href", "")), folder)
            dropped.append(not target)
            token.attrs["href"] = target
            if not target:
                continue
        elif token.type == "link_open":
            dropped.append(False)
        elif token.type == "link_close" and dropped.pop():
            continue
        kept.append(token)
    return kept


def _kept_whole(children: Sequence[Token]) -> None:
    """Short code is not broken at its hyphens."""
    for token in children:
        if token.type == "code_inline" and len(token.content) <= UNBROKEN:
            token.attrs["class"] = "short"


def own_address(target: str, folder: str) -> str:
    """Where a link of a page in `folder` (of docs/, "" for itself) leads here; "" for what is not here."""
    path, _, anchor = target.partition("#")
    mark = f"#{anchor}" if anchor else ""
    if not path:
        return mark
    name = name_of(posixpath.normpath(posixpath.join(folder, path)).removeprefix("../"))
    return f"/docs/{name}{mark}" if path.endswith(".md") and name in names() else ""


def _tables(tokens: Sequence[Token]) -> list[Token]:
    """Each in a frame; heads that say nothing, which are only noise to who listens to them, are left out."""
    kept, at = list[Token](), 0
    while at < len(tokens):
        token = tokens[at]
        if token.type == "thead_open":
            end = next(i for i in range(at, len(tokens)) if tokens[i].type == "thead_close")
            head = tokens[at : end + 1]
            _mend_head(head)
            kept += head if any(plain(one) for one in head if one.type == "inline") else []
            at = end
        else:
            kept += _framed(token) if token.type in ("table_open", "table_close") else [token]
        at += 1
    return kept


def _mend_head(head: Sequence[Token]) -> None:
    """A head's empty cell is none."""
    for at, token in enumerate(head):
        if token.type == "th_open" and not plain(head[at + 1]):
            token.tag = head[at + 2].tag = "td"


def _framed(token: Token) -> list[Token]:
    """A wide table is moved within its own frame, by keys as well."""
    if token.nesting == 1:
        token.attrs["class"] = "plain"
        return [Token("frame_open", "div", 1, attrs={"class": "scroll", "tabindex": "0"}), token]
    return [token, Token("frame_close", "div", -1)]


def _summary(tokens: Sequence[Token]) -> str:
    """The first sentence."""
    for at, token in enumerate(tokens):
        if token.type == "paragraph_open" and token.level == 0:
            text = "".join(
                " " if child.type == "softbreak" else child.content
                for child in tokens[at + 1].children or []
                if child.type in ("text", "code_inline", "softbreak")
            )
            return SENTENCE_END.split(text)[0].rstrip(":")
    return ""
