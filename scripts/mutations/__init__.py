"""Networks and faults of `scripts/bench mutations`: what verification must fail, and what it must not."""
