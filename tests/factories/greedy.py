"""Greedy decoding over any Executor through ForwardBatch alone, without engine or scheduler."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vivace.types.step import BLOCK_SIZE, Executor, ForwardBatch

Tokens = Sequence[int]


def make_batch(
    shares: Sequence[tuple[int, Tokens, int]], num_tables: int, blocks_per_table: int, *, all_logits: bool = False
) -> ForwardBatch:
    """A batch of (table number, token ids, first position) shares; wants the logits of the last row of each, or of all.

    Table t owns the KV blocks [t * blocks_per_table, (t + 1) * blocks_per_table), handed out from the last down, so
    that a test fails where an executor takes blocks to be in order.
    """
    pool = np.arange(num_tables * blocks_per_table, dtype=np.int32).reshape(num_tables, blocks_per_table)[:, ::-1]
    counts = [len(ids) for _, ids, _ in shares]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    last_rows = starts[1:] - 1
    return ForwardBatch(
        token_ids=np.concatenate([np.asarray(ids, np.int32) for _, ids, _ in shares]),
        positions=np.concatenate([np.arange(first, first + len(ids), dtype=np.int32) for _, ids, first in shares]),
        sequence_starts=starts,
        block_tables=np.ascontiguousarray(pool[[table for table, _, _ in shares]]),
        logit_rows=np.arange(starts[-1], dtype=np.int32) if all_logits else last_rows.astype(np.int32),
    )


def blocks_for(num_positions: int) -> int:
    """KV blocks that hold so many positions."""
    return -(-num_positions // BLOCK_SIZE)


def greedy_continuations(
    executor: Executor, prompts: Sequence[Tokens], num_tokens: int, *, chunk: int | None = None
) -> tuple[list[list[int]], list[NDArray[np.float32]]]:
    """Continue all prompts together, one batch a token; prompts are computed one by one in pieces of `chunk` rows.

    Returns:
        (tokens of each prompt, logits (vocab,) of the first step of each).
    """
    per_table = blocks_for(max(map(len, prompts)) + num_tokens)
    known = [list(prompt) for prompt in prompts]
    first_logits = []
    for table, prompt in enumerate(prompts):
        size = chunk or executor.max_rows
        for start in range(0, len(prompt), size):
            piece = prompt[start : start + size]
            logits = executor.forward(make_batch([(table, piece, start)], len(prompts), per_table))
        first_logits.append(logits[0].copy())
        known[table].append(int(np.argmax(logits[0])))
    for _ in range(num_tokens - 1):
        shares = [(table, ids[-1:], len(ids) - 1) for table, ids in enumerate(known)]
        for ids, row in zip(known, executor.forward(make_batch(shares, len(prompts), per_table)), strict=True):
            ids.append(int(np.argmax(row)))
    return [ids[len(prompt) :] for ids, prompt in zip(known, prompts, strict=True)], first_logits


def assert_alone_as_together(
    executor: Executor, prompts: Sequence[Tokens], num_tokens: int, chunks: Sequence[int]
) -> None:
    """Each prompt alone, in any of these pieces, goes on as among the others, with the same logits to the bit."""
    together, _ = greedy_continuations(executor, prompts, num_tokens)
    for prompt, tokens in zip(prompts, together, strict=True):
        alone, logits = greedy_continuations(executor, [prompt], num_tokens)
        assert alone[0] == tokens
        for chunk in chunks:
            in_chunks, chunk_logits = greedy_continuations(executor, [prompt], num_tokens, chunk=chunk)
            assert in_chunks[0] == tokens
            assert np.array_equal(chunk_logits[0], logits[0])
