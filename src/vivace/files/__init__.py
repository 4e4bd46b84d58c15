"""Model files in and out, the model catalogue and downloads."""
