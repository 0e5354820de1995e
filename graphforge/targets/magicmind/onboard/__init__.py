"""Scripts that travel in a bundle and run where MagicMind is: Python 3.7, numpy and MagicMind, nothing of ours."""
