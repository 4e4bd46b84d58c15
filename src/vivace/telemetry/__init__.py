"""Clock, stage timeline, counters."""
