"""The model as data: ops, the architectures that write them, and the passes that rewrite them."""
