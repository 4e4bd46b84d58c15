"""Events one by one as they come, or, on a poor network, all that came since the last send."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

ItemT = TypeVar("ItemT")


class _End:
    """Stands after the last item."""


async def gathered(
    items: AsyncGenerator[ItemT, None], send_every_s: Callable[[], float]
) -> AsyncGenerator[list[ItemT], None]:
    """Lists of items, in order, none of them empty. Closing it closes `items`.

    The first item and the last are never held; with `send_every_s` of 0 none is.

    Args:
        items: what is sent.
        send_every_s: least time between two sends, asked for each.
    """
    loop = asyncio.get_running_loop()
    sent_s = float("-inf")
    waiting: asyncio.Task[ItemT | _End] | None = None
    try:
        while True:
            item = await (_next(items) if waiting is None else waiting)
            waiting = None
            if isinstance(item, _End):
                return
            batch = [item]
            due_s = sent_s + send_every_s()
            while (left_s := due_s - loop.time()) > 0:
                waiting = waiting or loop.create_task(_next(items))
                done, _ = await asyncio.wait({waiting}, timeout=left_s)
                if not done or isinstance(more := waiting.result(), _End):
                    break
                batch.append(more)
                waiting = None
            sent_s = loop.time()
            yield batch
    finally:
        if waiting is not None:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await items.aclose()


def _next(items: AsyncGenerator[ItemT, None]) -> Coroutine[Any, Any, ItemT | _End]:
    async def take() -> ItemT | _End:
        async for item in items:
            return item
        return _End()

    return take()
