"""Writes op lists: every method appends one op and returns the name of the buffer it writes.

Owns buffer names and widths while a graph is being written; knows no architecture. A name is given out once, so every
buffer is written once.
"""

from vivace.graph.graph import Graph
from vivace.graph.ops import Add, Attention, Embed, GatedActivation, Linear, Op, RmsNorm, Rope, SelectRows
from vivace.types.model import ModelSpec, RopeSpec


class GraphBuilder:
    """Collects the ops of one model. `scope` (such as "layers.3.") is put before the names of buffers and weights."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.scope = ""
        self._ops: list[Op] = []
        self._widths: dict[str, int] = {}

    def embed(self) -> str:
        """Embedding rows of the tokens, times the model's embedding scale."""
        out = self._fresh("embedded", self.spec.hidden_size)
        self._ops.append(Embed(out, "embed.weight", self.spec.embed_scale))
        return out

    def rms_norm(self, x: str, weight: str, num_groups: int = 1) -> str:
        """RMS norm of x by the weight `{scope}{weight}.weight`; num_groups > 1 norms each head of x."""
        out = self._fresh(f"{weight}.out", self._widths[x])
        self._ops.append(RmsNorm(out, x, f"{self.scope}{weight}.weight", self.spec.norm_eps, num_groups))
        return out

    def linear(self, x: str, weight: str, width: int, *, bias: bool = False) -> str:
        """`{scope}{weight}.weight` times x, giving `width` lanes, plus `{scope}{weight}.bias` if asked."""
        out = self._fresh(f"{weight}.out", width)
        name = self.scope + weight
        self._ops.append(Linear(out, x, f"{name}.weight", f"{name}.bias" if bias else None))
        return out

    def logits(self, x: str) -> str:
        """The language-model head, by the embedding matrix where the model ties the two."""
        out = self._fresh("logits", self.spec.vocab_size)
        self._ops.append(Linear(out, x, "embed.weight" if self.spec.tied_embeddings else "lm_head.weight"))
        return out

    def rope(self, x: str, name: str, num_heads: int, rope: RopeSpec) -> str:
        """The heads of x rotated by the position of the row."""
        out = self._fresh(f"{name}.rotated", self._widths[x])
        self._ops.append(Rope(out, x, num_heads, self.spec.attention.head_dim, rope))
        return out

    def attention(self, q: str, k: str, v: str, layer: int) -> str:
        """Causal attention of `layer` over its KV pages, within the layer's window."""
        spec = self.spec.attention
        out = self._fresh("attn.mixed", spec.num_heads * spec.head_dim)
        heads = (spec.num_heads, spec.num_kv_heads, spec.head_dim)
        self._ops.append(Attention(out, q, k, v, layer, *heads, spec.scale, spec.windows[layer]))
        return out

    def gated_activation(self, gate: str, up: str) -> str:
        """The gate through the model's activation, times up."""
        out = self._fresh("mlp.gated", self._widths[gate])
        self._ops.append(GatedActivation(out, gate, up, self.spec.activation))
        return out

    def add(self, a: str, b: str, name: str) -> str:
        """The sum of a and b."""
        out = self._fresh(name, self._widths[a])
        self._ops.append(Add(out, a, b))
        return out

    def select_rows(self, x: str) -> str:
        """The rows of x whose logits are wanted."""
        out = self._fresh("selected", self._widths[x])
        self._ops.append(SelectRows(out, x))
        return out

    def finish(self, output: str) -> Graph:
        """The graph so far, with `output` as its logits."""
        return Graph(self.spec, tuple(self._ops), dict(self._widths), output)

    def _fresh(self, name: str, width: int) -> str:
        out = self.scope + name
        if out in self._widths:
            raise ValueError(f"buffer {out!r} is written twice")
        self._widths[out] = width
        return out
