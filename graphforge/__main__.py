"""`python -m graphforge` is the `graphforge` command."""

from __future__ import annotations

from graphforge.cli.main import main

if __name__ == "__main__":
    main()
