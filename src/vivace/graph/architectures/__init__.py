"""One file per model family: `build(spec)` writes the family's op list."""
