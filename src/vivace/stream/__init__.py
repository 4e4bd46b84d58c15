"""Streams that outlive their connection: numbered logs, resume, flush policies, safety filters, pacing.

A stranger to the engine: it takes `AnswerChunk`s from anything that yields them and hands out numbered events.
"""
