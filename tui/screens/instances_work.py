"""Begins work of a screen that goes on beside it, and ends with it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from textual.dom import DOMNode
from textual.worker import Worker


def begin(node: DOMNode, group: str, work: Callable[[], Coroutine[Any, Any, None]]) -> Worker[None]:
    """One of a group at a time: what is under way gives way. Given as a function, so that work that has
    to give way before it has begun leaves nothing behind."""
    worker: Worker[None] = node.run_worker(work, group=group, exclusive=True)
    return worker
