"""The last line: the keys of a screen, as many as it has room for; `?` is always among them and shows all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.widget import Widget
from textual.widgets import Footer
from textual.widgets._footer import FooterKey

FIRST_TO_GO: Final = ("quit", "new_job")
"""The same on every screen: whoever is here knows them soon."""
ALWAYS: Final = ("help", "app.command_palette")


class CalmFooter(Footer):
    """Textual's footer, made anew only where that shows something else: it is told of each change of the
    focus several times, and its keys were half of the work of opening a screen."""

    _shown: tuple[object, ...] = ()

    async def recompose(self) -> None:
        """Make the keys anew if they, their size or the room for them have changed."""
        if not self.is_attached:
            return
        keys = [
            (one.binding, self.app.get_key_display(one.binding), one.enabled)
            for one in self.screen.active_bindings.values()
        ]
        look = (self._bindings_ready, self.compact, self.show_command_palette, self.app.size.width)
        if (now := (look, *keys)) != self._shown:
            self._shown = now
            await super().recompose()


class KeyLine(CalmFooter):
    """Textual's footer would let what is too long run out of the terminal."""

    def compose(self) -> ComposeResult:
        made: list[Widget] = list(super().compose())
        keys = [one for one in made if isinstance(one, FooterKey)]
        dropped = too_many(keys, self.app.size.width, around=1 if self.compact else 2)
        yield from (one for one in made if one not in dropped)


def too_many(keys: Sequence[FooterKey], width: int, around: int) -> list[FooterKey]:
    """Which keys to leave out so that the rest fits; `around` = blanks beside each."""
    early = [one for action in FIRST_TO_GO for one in keys if one.action == action]
    late = [one for one in reversed(keys) if one.action not in (*FIRST_TO_GO, *ALWAYS)]
    dropped: list[FooterKey] = []
    for one in (*early, *late):
        if sum(_cells(kept) + around for kept in keys if kept not in dropped) <= width + 1:
            break
        dropped.append(one)
    return dropped


def _cells(key: FooterKey) -> int:
    return cell_len(f"{key.key_display} {key.description}")
