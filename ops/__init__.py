"""The semantic operators: one per file, what it means (schema, shape rule, reference) and how it lowers."""

from __future__ import annotations

if __name__ != "graphforge.ops":
    raise ImportError(
        f"the operators were imported as {__name__!r}; import them as graphforge.ops, else each would exist twice"
    )
