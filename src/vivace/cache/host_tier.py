"""Blocks in ordinary memory beside the executor's pool: found by key, the least recently used forgotten first.

Contents are never changed after they came in, so whoever got one may keep it while it is forgotten here.
"""

from collections import OrderedDict
from collections.abc import Callable

from vivace.types.step import BlockContent


class HostTier:
    """Keeps block contents by key. Belongs to one thread.

    Args:
        max_bytes: of all contents together; a content that is larger alone is not kept.
        pass_on: gets what is forgotten to make room, oldest first.
    """

    def __init__(self, max_bytes: int, pass_on: Callable[[bytes, BlockContent], None] | None = None) -> None:
        self._max_bytes = max_bytes
        self._pass_on = pass_on
        self._contents: OrderedDict[bytes, BlockContent] = OrderedDict()
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._contents)

    def __contains__(self, key: bytes) -> bool:
        return key in self._contents

    def get(self, key: bytes) -> BlockContent | None:
        """The content of a key, which is the youngest now; None when it is not here."""
        content = self._contents.get(key)
        if content is not None:
            self._contents.move_to_end(key)
        return content

    def put(self, key: bytes, content: BlockContent) -> None:
        """Keep a content. One that is here already becomes the youngest."""
        if key in self._contents:
            self._contents.move_to_end(key)
            return
        self._contents[key] = content
        self.num_bytes += content.nbytes
        while self.num_bytes > self._max_bytes:
            oldest, forgotten = self._contents.popitem(last=False)
            self.num_bytes -= forgotten.nbytes
            if self._pass_on is not None:
                self._pass_on(oldest, forgotten)

    def discard(self, key: bytes) -> None:
        """Forget a key, and pass it on to nobody."""
        content = self._contents.pop(key, None)
        if content is not None:
            self.num_bytes -= content.nbytes

    def clear(self) -> None:
        """Forget everything, and pass on nothing."""
        self._contents.clear()
        self.num_bytes = 0
