"""A bundle as one HTML page."""

from __future__ import annotations

from graphforge.page.render import render_report, write_report

__all__ = ["render_report", "write_report"]
