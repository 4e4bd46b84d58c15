"""The loop that owns inference, and the Python API around it."""
