"""Stand-in for tests, made from public samples; NOTHING run with it was run on an MLU."""
