"""What a server does beside its requests: tasks that begin with its event loop and end with it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from starlette.applications import Starlette

Work = Callable[[], Coroutine[Any, Any, None]]


def beside_requests(works: Sequence[Work]) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    """A lifespan that runs every one of `works` until the server ends."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
        tasks = [asyncio.ensure_future(work()) for work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    return lifespan
