"""Execute an op list: `reference` (numpy, the oracle) and `native` (C++)."""
