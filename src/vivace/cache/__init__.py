"""KV cache bookkeeping: which blocks belong to whom. The memory itself belongs to the executor."""
