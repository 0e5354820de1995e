"""Helpers in a file of their own, as `test_user_stacks.py` calls them from a model."""

from __future__ import annotations

import torch

__all__ = ["outer"]


def inner(x: torch.Tensor) -> torch.Tensor:
    return x.relu()  # inner


def outer(x: torch.Tensor) -> torch.Tensor:
    scaled = x * 3  # outer
    return inner(scaled)  # outer calls
