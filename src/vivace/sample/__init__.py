"""Logits to tokens: penalties, filters and the draw."""
