"""Work that ends when its reader leaves."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

ResultT = TypeVar("ResultT")


class ClientGone(Exception):  # noqa: N818 - an event, not an error: nobody is left to be told
    """The client closed its connection before the answer was complete."""


async def while_connected(receive: Receive, work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Await `work`, and cancel it as soon as the client disconnects.

    The request body must have been read whole: `receive` then has nothing to tell but the disconnect.

    Raises:
        ClientGone: the client left first. `work` has ended when this is raised, on every path.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGone
    finally:
        await _end(watching)
        await _end(working)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _end(task: "asyncio.Future[Any]") -> None:
    """Cancel a task and wait until it has cleaned up; what it raises no longer matters to anybody."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
