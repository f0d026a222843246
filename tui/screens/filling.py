"""Fills a DataTable so that what is marked stays marked and nothing jumps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text
from textual.widgets import DataTable

PADDING = 2
"""Characters beside the contents of each column."""
BAR = 2
"""For the scrollbar."""


@dataclass(frozen=True)
class Column:
    """`width` 0: what the others leave, at least `least`. Shown from a table's width `from_width` on."""

    name: str
    width: int = 0
    right: bool = False
    from_width: int = 0
    least: int = 10


Row = tuple[str, Sequence[Text]]
"""A key that names it, and a cell for each column."""


def fill(table: DataTable[Text], columns: Sequence[Column], rows: Sequence[Row], width: int) -> None:
    """Show these rows in a table so wide. Cells are of all columns, shown or not."""
    shown = [place for place, one in enumerate(columns) if width >= one.from_width]
    names = [columns[place].name for place in shown]
    widths = _widths([columns[place] for place in shown], width)
    same = [str(one.label) for one in table.ordered_columns] == names and [
        one.width for one in table.ordered_columns
    ] == widths
    cells = {key: [_aligned(columns[place], row[place]) for place in shown] for key, row in rows}
    if same and [str(key.value) for key in table.rows] == list(cells):
        _update(table, cells)
        return
    marked = _marked(table)
    table.clear(columns=True)
    for name, size, place in zip(names, widths, shown, strict=True):
        table.add_column(_aligned(columns[place], Text(name)), width=size, key=name)
    for key, row in cells.items():
        table.add_row(*row, key=key)
    if marked in cells:
        table.move_cursor(row=list(cells).index(marked))


def _update(table: DataTable[Text], cells: dict[str, list[Text]]) -> None:
    for key, row in cells.items():
        if _looks(table.get_row(key)) != _looks(row):
            for column, cell in zip(table.ordered_columns, row, strict=True):
                table.update_cell(key, column.key, cell)


def _looks(row: Sequence[Text]) -> list[tuple[Text, object]]:
    """Texts are equal whatever their own style is; new colours are in it."""
    return [(cell, cell.style) for cell in row]


def _marked(table: DataTable[Text]) -> str:
    keys = list(table.rows)
    return str(keys[table.cursor_row].value) if table.cursor_row < len(keys) else ""


def _widths(columns: Sequence[Column], width: int) -> list[int]:
    """Every flexible column has an equal part of what is left."""
    flexible = [one for one in columns if not one.width]
    left = width - BAR - PADDING * len(columns) - sum(one.width for one in columns)
    each = left // max(1, len(flexible))
    return [one.width or max(one.least, each) for one in columns]


def _aligned(column: Column, cell: Text) -> Text:
    cell.justify = "right" if column.right else "left"
    return cell
