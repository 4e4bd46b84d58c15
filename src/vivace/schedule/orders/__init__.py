"""Orders: which sequence is served first. One file a kind, one table of them."""
