"""Calculators: what a choice costs and brings, before any model is loaded."""
