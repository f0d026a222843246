"""What endpoints ask for in their signatures: the store of the app that answers.

A coroutine: FastAPI would ask a plain function in a thread.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from web.store import Store


async def _store(request: Request) -> Store:
    found: Store = request.app.state.store
    return found


Asked = Annotated[Store, Depends(_store)]
