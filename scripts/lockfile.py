"""The lock: the version of every package that `scripts/setup.sh` installs.

    python scripts/lockfile.py write    the packages of this environment become the lock; scripts/lock calls it
    python scripts/lockfile.py newer    how this environment differs from the lock; scripts/check --newest calls it
    python scripts/lockfile.py range NAME    what pyproject.toml asks of a package

Run it with the Python of the environment in question; that may hold nothing yet, so only the standard library is used.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

__all__ = ["LOCK", "TORCH_LOCK", "Change", "changes", "parse", "range_of", "split"]

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "scripts" / "requirements.lock"
TORCH_LOCK = ROOT / "scripts" / "requirements-torch.lock"

# pip comes with the interpreter, uv is there to write the lock, and graphforge is what the rest is for
_OUTSIDE = frozenset({"pip", "uv", "graphforge-compiler"})
# torch and what a build of it or of a target brings along: another machine needs another build, of the same version
_OWN_BUILD = re.compile(r"torch|torchvision|triton|tensorrt-rtx.*|nvidia-.*|cuda-.*")
# of those, the ones that setup.sh asks for by name; the others follow from them
_ASKED_FOR = frozenset({"torch", "torchvision", "tensorrt-rtx-cu13"})

_HEADER = """\
# What scripts/setup.sh installs, each file known by its hash.  Written by scripts/lock; do not edit.
# locked for Python {python}
"""
_TORCH_HEADER = """\
# Versions of what comes in another build for each machine (CPU or CUDA, from an index or from a folder of wheels), so
# that no list of hashes would hold everywhere.  Written by scripts/lock; do not edit.
"""


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """A package whose version is not the locked one; the empty version says that it is absent."""

    name: str
    locked: str
    found: str


def parse(text: str) -> dict[str, str]:
    """The versions that a lock file names, by package."""
    return dict(re.findall(r"^([a-z0-9-]+)==([^\s;\\]+)", text, flags=re.MULTILINE))


def split(installed: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The packages to lock by hash, and those to lock by version alone."""
    hashed, versions = {}, {}
    for name, version in sorted(installed.items()):
        if name in _OUTSIDE:
            continue
        if not _OWN_BUILD.fullmatch(name):
            hashed[name] = version
        elif name in _ASKED_FOR:
            versions[name] = version.split("+")[0]  # +cpu names the build
    return hashed, versions


def changes(locked: Mapping[str, str], found: Mapping[str, str]) -> list[Change]:
    """What differs, by name."""
    names = sorted({*locked, *found})
    every = (Change(name, locked.get(name, ""), found.get(name, "")) for name in names)
    return [change for change in every if change.locked != change.found]


def range_of(name: str) -> str:
    """The requirement as pyproject.toml has it.

    Raises:
        KeyError: graphforge does not depend on the package.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    for requirement in [*project["dependencies"], *(line for extra in extras for line in extra)]:
        if re.split(r"[^\w-]", requirement)[0] == name:
            return str(requirement)
    raise KeyError(name)


def _installed() -> dict[str, str]:
    return {re.sub(r"[-_.]+", "-", found.name).lower(): found.version for found in distributions()}


def _with_hashes(pins: Iterable[str]) -> str:
    """Each pin with the hash of every file of that release, on whichever platform it is for."""
    command = "uv pip compile --no-deps --generate-hashes --no-header --no-annotate --quiet"
    asked = subprocess.run(
        [sys.executable, "-m", *command.split(), "--python", sys.executable, "-"],
        input="\n".join(pins),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return asked.stdout


def _write() -> None:
    hashed, versions = split(_installed())
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    text = _HEADER.format(python=python) + _with_hashes(f"{name}=={version}" for name, version in hashed.items())
    if parse(text) != hashed:
        raise SystemExit(
            f"lock: the index answered with other versions than are installed: {changes(hashed, parse(text))}"
        )
    LOCK.write_text(text)
    TORCH_LOCK.write_text(_TORCH_HEADER + "".join(f"{name}=={version}\n" for name, version in versions.items()))


def _newer() -> None:
    hashed, versions = split(_installed())
    found = changes(parse(LOCK.read_text()) | parse(TORCH_LOCK.read_text()), hashed | versions)
    for change in found:
        print(f"  {change.name:28} {change.locked or 'not locked':16} -> {change.found or 'absent'}")
    print(
        f"{len(found)} packages are not what the lock names"
        if found
        else "every package is the one that the lock names"
    )


def _main(arguments: list[str]) -> None:
    match arguments:
        case ["write"]:
            _write()
        case ["newer"]:
            _newer()
        case ["range", name]:
            print(range_of(name))
        case _:
            raise SystemExit((__doc__ or "").strip())


if __name__ == "__main__":
    _main(sys.argv[1:])
