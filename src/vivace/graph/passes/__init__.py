"""Rewriting and checking op lists: every pass takes a Graph and gives a new one, or a fact about it."""

from vivace.graph.passes.arena import ArenaPlan, plan_arena
from vivace.graph.passes.cast_inputs import cast_inputs
from vivace.graph.passes.cut_after_layer import cut_after_layer
from vivace.graph.passes.fuse_add_norm import fuse_add_norm
from vivace.graph.passes.fuse_linears import fuse_linears
from vivace.graph.passes.validate import validate

__all__ = ["ArenaPlan", "cast_inputs", "cut_after_layer", "fuse_add_norm", "fuse_linears", "plan_arena", "validate"]
