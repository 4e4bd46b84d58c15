"""Engines as children of a comparison: each module here runs under the Python of its peer's own environment.

Nothing in this package may import vivace, except `vivace_engine`: the environment of a peer does not have it.
"""
