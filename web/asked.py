"""What endpoints ask for in their signatures: the store and the settings of the app that answers.

All of these are coroutines: FastAPI would ask plain functions in a thread, each for itself.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from web.settings import Settings
from web.store import Store


async def _store(request: Request) -> Store:
    found: Store = request.app.state.store
    return found


async def _settings(request: Request) -> Settings:
    found: Settings = request.app.state.settings
    return found


Asked = Annotated[Store, Depends(_store)]
AskedSettings = Annotated[Settings, Depends(_settings)]
