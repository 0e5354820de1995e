"""Write the second half of the examples of passes (`passes/examples/*.txt`): what the pass makes of the first half.

    python scripts/pass_examples.py [NAME ...]

A new example is a file with the pipeline, an empty line and the graph before it.  Look at what comes out before you
commit it: `git diff passes/examples`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graphforge.ops.custom_op import TensorFact, custom_op
from graphforge.transform.example import Example

FOLDER = Path(__file__).parents[1] / "passes" / "examples"


def _same(inputs: Sequence[TensorFact | None], attributes: Mapping[str, Any]) -> list[TensorFact]:
    return [one for one in inputs if one is not None]


def main(names: list[str]) -> None:
    """Rewrite the named examples, or all."""
    custom_op("acme::Twice", inputs=["x"], outputs=["y"], shapes=_same)
    for file in [FOLDER / f"{name.replace('-', '_')}.txt" for name in names] or sorted(FOLDER.glob("*.txt")):
        text = file.read_text(encoding="utf-8")
        given = Example.parse(text if "\n==>\n" in text else text + "\n==>\n")
        made = str(given.run())
        if made != text:
            file.write_text(made, encoding="utf-8")
            print(f"wrote {file.name}")


if __name__ == "__main__":
    main(sys.argv[1:])
