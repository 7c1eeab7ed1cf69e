"""`.venv`, made from the lock and remade only when the lock changes."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from sandbox.shell import ask, must

STAMP = "bootstrap.stamp"
SOURCES = ("requirements/dev.txt", "pyproject.toml")


def fingerprint(root: Path, python: tuple[int, int]) -> str:
    """Return what a `.venv` in this folder, for this Python, has to be made from."""
    digest = hashlib.sha256(f"{root.resolve()} {python[0]}.{python[1]}".encode())
    for name in SOURCES:
        digest.update((root / name).read_bytes())
    return digest.hexdigest()


def is_current(root: Path, python: tuple[int, int]) -> bool:
    """Tell whether `.venv` is what the lock says."""
    stamp = root / ".venv" / STAMP
    program = root / ".venv" / "bin" / "inv"
    return program.is_file() and stamp.is_file() and stamp.read_text() == fingerprint(root, python)


def is_usable(root: Path) -> bool:
    """Tell whether what stands in `.venv` can be built upon.

    A clone that was moved keeps programs which name the old folder's Python.
    """
    python = root / ".venv" / "bin" / "python"
    pip = root / ".venv" / "bin" / "pip"
    if not pip.is_file() or not ask((str(python), "-c", ""), deadline=30).ok:
        return False
    return str(root) in pip.read_text(errors="replace").partition("\n")[0]


def make(root: Path) -> None:
    """Make `.venv` from the lock, with the hash of every file checked.

    Args:
        root: The project's folder.
    """
    version = sys.version_info[:2]
    folder = root / ".venv"
    if not is_usable(root):
        must(
            (sys.executable, "-m", "venv", "--clear", str(folder)),
            deadline=120,
            next_step="read the lines above; `python3 -m venv .venv` must work here",
        )
    pip = (str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input")
    hint = "check that the package index is reachable, then run it again"
    must(
        (*pip, "install", "--quiet", "--require-hashes", "-r", "requirements/dev.txt"),
        deadline=900,
        next_step=hint,
        cwd=root,
    )
    must(
        (*pip, "install", "--quiet", "--no-deps", "--no-build-isolation", "-e", "."),
        deadline=120,
        next_step=hint,
        cwd=root,
    )
    (folder / STAMP).write_text(fingerprint(root, version))
