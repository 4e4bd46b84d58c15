"""What `vivace bench compare` is made of: peers as a table, their environments, measuring in turns, the report."""
