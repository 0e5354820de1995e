"""Lowerings of ATen operators, one file per family.  Each is driven by torch's own OpInfo samples in tests/frontend."""
