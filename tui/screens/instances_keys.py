"""The SSH keys that let a person into jobs: see them, make, add, choose and remove them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.css.query import NoMatches
from textual.screen import ModalScreen
from textual.widgets import DataTable, Input, Static

from protocol.errors import QubixError
from tui.keys import fingerprint
from tui.safe import safe_line
from tui.screens.area import AreaScreen
from tui.screens.confirm import Confirm
from tui.screens.instances_work import begin
from tui.screens.key_line import CalmFooter
from tui.ssh_keys import USUAL, Key, Keys

NONE_YET = "No SSH keys yet. m makes one; the first job that needs one makes one, too."
EXPLAINED = "New jobs let in the key marked *. Jobs that run already keep those they were begun with."


class KeysPage(AreaScreen):
    """Needs no daemon: keys are files of this machine."""

    AREA = "instances"
    HELP = (
        "SSH keys are what lets you, and nobody else, into your jobs. m makes one, a adds one that you have, "
        "u says which new jobs let in, y copies the public line, x removes one. A private key never leaves "
        "this machine."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back"),
        Binding("m", "make", "Make"),
        Binding("a", "add", "Add"),
        Binding("u", "use", "Use"),
        Binding("y", "copy", "Copy public"),
        Binding("x,delete", "remove", "Remove", key_display="x"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._found: list[Key] = []

    @property
    def _keys(self) -> Keys:
        return Keys(self.qubix.directory / "ssh" / "keys")

    def compose_body(self) -> ComposeResult:
        yield Static(Text("SSH keys", "bold"), id="keys-title")
        table: DataTable[Text] = DataTable(id="keys-table", cursor_type="row")
        yield table
        yield Static(EXPLAINED, id="keys-words", markup=False)

    def on_mount(self) -> None:
        self.loaded = True  # the daemon has nothing to say about keys
        self._draw()
        self.query_one("#keys-table").focus()

    async def load(self) -> None:
        self._draw()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action not in ("use", "copy", "remove") or self._marked() is not None

    def _marked(self) -> Key | None:
        try:
            row = self.query_one("#keys-table", DataTable).cursor_row
        except NoMatches:  # asked before there is a table
            return None
        return self._found[row] if 0 <= row < len(self._found) else None

    def _draw(self) -> None:
        self._found = self._keys.all()
        table = self.query_one("#keys-table", DataTable)
        row = table.cursor_row
        table.clear(columns=True)
        table.add_columns(*(Text(name) for name in ("", "name", "kind", "fingerprint", "where")))
        for key in self._found:
            cells = ("*" if key.used else " ", key.name, key.public.split()[0], fingerprint(key),
                     "made here" if key.made else safe_line(str(key.identity.resolve()), 200))  # fmt: skip
            table.add_row(*(Text(safe_line(cell, 200)) for cell in cells))
        table.move_cursor(row=row)
        self.query_one("#keys-words", Static).update(EXPLAINED if self._found else NONE_YET)
        self.refresh_bindings()

    # --- keys ---------------------------------------------------------------------------------

    def action_back(self) -> None:
        self.dismiss()

    def action_make(self) -> None:
        begin(self, "keys", self._make)

    def action_add(self) -> None:
        begin(self, "keys", self._add)

    def action_remove(self) -> None:
        key = self._marked()
        if key is not None:
            begin(self, "keys", partial(self._remove, key))

    def action_use(self) -> None:
        key = self._marked()
        if key is not None:
            self._done(lambda: self._keys.use(key.name), "new jobs let it in")

    def action_copy(self) -> None:
        key = self._marked()
        if key is not None:
            self.app.copy_to_clipboard(key.public)
            self.notify(f"Copied: {safe_line(key.public, 60)}", markup=False)

    async def _make(self) -> None:
        free = USUAL if USUAL not in {key.name for key in self._found} else ""
        name = await self.app.push_screen_wait(Ask("What shall the new key be called?", free))
        if name:
            await asyncio.to_thread(_import_slowly)
            self._done(lambda: self._keys.make(name), "made")

    async def _add(self) -> None:
        file = await self.app.push_screen_wait(Ask("Which file? A public key, or a private one.", "~/.ssh/"))
        if file:
            self._done(lambda: self._keys.add(Path(file).expanduser(), ""), "added")

    async def _remove(self, key: Key) -> None:
        left = (
            "It was made here and is gone for good: jobs begun with it let you in no more."
            if key.made
            else "It is only forgotten here; your file stays where it is."
        )
        if await self.app.push_screen_wait(
            Confirm(f"Remove the key {key.name}?", left, yes="Remove it", no="Keep it")
        ):
            self._done(lambda: self._keys.remove(key.name), "removed")

    def _done(self, act: Callable[[], Key], words: str) -> None:
        try:
            key = act()
        except QubixError as error:
            self.say_error(error)
        except OSError as error:
            self.notify(f"This could not be written: {error.strerror}", severity="error", markup=False)
        else:
            self.notify(f"{key.name}: {words}.", markup=False)
        self._draw()


def _import_slowly() -> None:
    """In a thread, so that the screen goes on while what makes keys is read from disk."""
    import cryptography.hazmat.primitives.asymmetric.ed25519
    import cryptography.hazmat.primitives.serialization  # noqa: F401  # only so that it is there


class Ask(ModalScreen[str]):
    """One line of text; empty = never mind."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss('')", "Never mind")]

    def __init__(self, question: str, value: str) -> None:
        super().__init__()
        self._question, self._value = question, value

    def compose(self) -> ComposeResult:
        with Vertical(id="ask-box"):
            yield Static(self._question, markup=False)
            yield Input(self._value, max_length=1_000, select_on_focus=False)
        yield CalmFooter()

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip())
