"""Accuracy on a data set: what is annotated, what is found, and figures of how near the two are."""
