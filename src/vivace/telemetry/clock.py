"""The one clock of the stack: monotonic, in whole nanoseconds, comparable across threads of a process."""

import time
from collections.abc import Callable

Clock = Callable[[], int]

now_ns: Clock = time.monotonic_ns

NS_PER_S = 1_000_000_000
