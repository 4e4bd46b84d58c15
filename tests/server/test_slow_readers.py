"""Readers that do not read: the server's memory stays bounded, every stream has its end, and others notice nothing."""

import pytest

from factories.slow_readers import Crowd, watch

EXTRA_BYTES = 256 * 1024
"""What a stream may hold beside its log: connection, request, tasks, some events. Streams that are read at once take
nearly as much (`bench/slow_readers.py`); what must not be here is an answer once more for each reader."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_five_hundred_slow_readers_cost_bounded_memory_and_nobody_an_end() -> None:
    crowd = Crowd(num_slow=500, num_tokens=100)
    sight = watch(crowd)
    num_streams = crowd.num_slow + crowd.num_fast
    assert sight.ends == {1: num_streams}
    assert (sight.num_ended, sight.num_running, sight.num_accepted) == (num_streams, 0, num_streams)
    assert sight.fast_bytes == [crowd.num_tokens * crowd.token_bytes] * crowd.num_fast
    log_bytes = crowd.num_tokens * (crowd.token_bytes + 600)
    assert sight.peak_bytes - sight.base_bytes < num_streams * (log_bytes + EXTRA_BYTES)
    assert len(sight.late_s) >= crowd.num_tokens, "the engine went on stepping"
