"""Clock and stage timeline: measured once, at the walls; inner rooms return numbers."""
