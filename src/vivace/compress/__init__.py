"""Smaller weights: quantisers, calibration, methods that keep the quality, and the figures that show what was kept."""
