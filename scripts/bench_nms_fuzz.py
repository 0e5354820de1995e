"""Thousands of random NMS cases per lowering against the reference; every difference is an error.

scripts/bench nms_fuzz                       # 4,000 cases per lowering and operator, about five minutes
scripts/bench nms_fuzz --cases 500 --seed 3
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from graphforge.passes.lower_nms import LowerNms
from tests.ops.nms_cases import FORMS, NOT_CONVERGED, SETTINGS, Batched, Multiclass, batched_case

LOWERINGS = (LowerNms(), LowerNms(form="portable"), LowerNms(form="portable", depth=30))
THRESHOLDS = (0.0, 0.3, 0.45, 0.5, 0.7, 1.0)


def batched(lowering: LowerNms, cases: int, random: np.random.Generator) -> Iterator[str]:
    """What is different, case by case."""
    sessions = [
        Batched(lowering, threshold, classes, limit)
        for threshold in THRESHOLDS
        for classes, limit in ((False, 0), (True, 0), (True, 200), (True, 1 << 40))
    ]
    for session in itertools.islice(itertools.cycle(sessions), cases):
        yield session.differs(*batched_case(random, session.classes))


def multiclass(lowering: LowerNms, cases: int, random: np.random.Generator) -> Iterator[str]:
    """The same for MulticlassNMS, with dynamic sizes and a few known ones."""
    sessions = [
        Multiclass(lowering, settings, valid=valid, **form)
        for settings in SETTINGS
        for valid in (False, True)
        for form in FORMS
    ]
    for settings in SETTINGS[2:7]:
        sessions.append(Multiclass(lowering, settings, dims=(2, 30, 3)))
        sessions.append(Multiclass(lowering, settings, dims=(3, 40, 1), per_class=False, ids=True, valid=True))
        sessions.append(Multiclass(lowering, settings, dims=(1, 12, 80)))
    for position in itertools.islice(itertools.count(), cases):
        if position % 400 == 399:  # as many classes as LVIS has; slow, hence rare
            settings = SETTINGS[position // 400 % len(SETTINGS)]
            session = Multiclass(lowering, settings, dims=(1, 4, 1203))
        else:
            session = sessions[position % len(sessions)]
        yield session.differs(*session.case(random))


def main() -> int:
    """Print a line per lowering and operator."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=4000, help="per lowering and operator")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    failures = 0
    for lowering in LOWERINGS:
        for name, cases in (("BatchedNMS", batched), ("MulticlassNMS", multiclass)):
            random = np.random.default_rng(options.seed)
            started = time.perf_counter()
            found = Counter[str]()
            for position, difference in enumerate(cases(lowering, options.cases, random)):
                kind = "equal" if not difference else "not converged" if difference == NOT_CONVERGED else "different"
                found[kind] += 1
                if kind == "different" or (kind == "not converged" and not lowering.depth):
                    failures += 1
                    print(f"  case {position}: {difference[:300]}")
            counts = ", ".join(f"{count} {kind}" for kind, count in sorted(found.items()))
            print(f"{name:14} {lowering.spec():40} {counts} ({time.perf_counter() - started:.0f} s)", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
