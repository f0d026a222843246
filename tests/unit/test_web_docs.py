"""The documentation as pages: all of it is there, links lead on, nothing in it is markup of others."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest

from tests.support.web_client import client_of
from tests.support.web_mirror import filled
from tui.verb_table import VERBS
from web.manual_text import FOLDER, name_of, names, own_address, rendered, slug
from web.pages.docs import GROUPS, manual
from web.settings import Settings
from web.words import LANGUAGES

DOCS = Path(__file__).parents[2] / "docs"


def asked(mirror: Path, *paths: str, **headers: str) -> list[httpx.Response]:
    async def ask() -> list[httpx.Response]:
        async with client_of(Settings(mirror=str(mirror))) as client:
            return [await client.get(path, headers=headers) for path in paths]

    return asyncio.run(ask())


def test_all_of_docs_is_there_and_everything_is_found_from_the_first_page() -> None:
    assert FOLDER.resolve() == DOCS, "web/manual is docs/"
    listed = {name for group in GROUPS.values() for name in group}
    assert listed == {name for name in names() if "/" not in name}
    assert {f"cli/{verb}" for verb in VERBS} <= names()


@pytest.mark.parametrize("language", LANGUAGES)
def test_links_lead_to_sections_that_are_there(language: str) -> None:
    pages = {name: manual(name, language) for name in names()}
    anchors = {name: set(re.findall(r' id="([^"]+)"', page.body)) for name, page in pages.items()}
    found = 0
    for name, page in pages.items():
        assert page.title and page.summary, name
        for path, anchor in re.findall(r'<a href="(/docs/[^"#]*)?#?([^"]*)"', page.body):
            target = path.removeprefix("/docs/") or name
            assert not anchor or unquote(anchor) in anchors[target], f"{name} leads to {path}#{anchor}"
            found += 1
    assert found > 200


def test_every_translation_is_of_a_page() -> None:
    translated = {name_of(file.relative_to(DOCS).as_posix()) for file in (DOCS / "pt").rglob("*.md")}
    assert {"caller", "provider", "web", "troubleshooting", "faq", "web-api"} <= translated <= names()
    for name in translated:
        english, other = (re.findall(r"<h\d", manual(name, language).body) for language in ("en", "pt"))
        assert english == other, f"{name} has other sections: links of English pages would miss them"


@pytest.mark.parametrize("name", ["caller", "web", "web-api", "troubleshooting"])
def test_translations_leave_commands_and_codes_alone(name: str) -> None:
    english, portuguese = ((DOCS / folder / f"{name}.md").read_text() for folder in ("", "pt"))
    words = re.compile(r"`[^`\n]+`|^    (?:qubix|curl|python|pip|make|export)\b[^#\n]*", re.MULTILINE)
    assert sorted({word.strip() for word in words.findall(english)}) == sorted(
        {word.strip() for word in words.findall(portuguese)}
    )


def test_in_the_language_that_is_asked_for_or_in_english_and_said_so(tmp_path: Path) -> None:
    mirror = filled(tmp_path / "mirror.db", 1)
    english, portuguese, missing = asked(
        mirror, "/docs/caller", "/docs/caller?lang=pt", "/docs/isolation?lang=pt"
    )
    assert "<h1>Being a caller</h1>" in english.text and "not there in your language" not in english.text
    assert '<html lang="pt"' in portuguese.text and "<h1>Being a caller</h1>" not in portuguese.text
    assert "is not there in your language" not in missing.text
    assert '<div lang="en">' in missing.text and 'class="notice"' in missing.text


def test_addresses_that_are_none_are_not_found(tmp_path: Path) -> None:
    mirror = filled(tmp_path / "mirror.db", 1)
    odd = (
        "/docs/nothing",
        "/docs/../pyproject.toml",
        "/docs/..%2f..%2fREADME",
        "/docs/pt/caller",
        "/docs/caller.md",
    )
    answers = asked(
        mirror, *odd, "/docs/%00", "/docs/cli", "/docs/cli/run", "/docs/adr/0001-rooms-and-import-rules"
    )
    assert [answer.status_code for answer in answers] == [404] * 6 + [200] * 3


def test_code_can_be_copied_and_markup_stays_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "<!-- made -->\n# T\n\nOne. <script>x</script>\n\n## A `b`\n\n## A b\n\n"
    links = "[x](../src.py) [y](#a-b) [z](javascript:1)\n"
    (tmp_path / "odd.md").write_text(f"{text}{links}\n    <b>code</b>\n\n| | |\n|---|---|\n| 1 | 2 |\n")
    monkeypatch.setattr("web.manual_text.FOLDER", tmp_path)
    page = rendered("odd", "en", lambda code: f"[{len(code)}]")
    assert page.title == "T" and page.summary == "One." and "[11]" in page.body
    assert [one.anchor for one in page.contents] == ["a-b", "a-b-1"]
    assert "<script" not in page.body and "javascript" not in page.body.replace("javascript:1)", "")
    assert "src.py" not in page.body and '<a href="#a-b">y</a>' in page.body and "<thead" not in page.body


def test_links_of_pages_become_ours() -> None:
    assert own_address("money.md#one-lease", "") == "/docs/money#one-lease"
    assert (
        own_address("../errors.md", "cli") == "/docs/errors"
        and own_address("README.md", "cli") == "/docs/cli"
    )
    assert own_address("../money.md", "") == own_address("money.md", "") == "/docs/money"
    assert own_address("../contracts/README.md", "") == own_address("//x.example/y.md", "") == ""
    assert own_address("https://x.example/caller.md", "") == ""
    assert slug("What `qubix` is, & why?") == "what-qubix-is--why"
