"""The library that detached work runs from: this package, as an archive."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Bundle:
    """An archive, and the name that stands for its content."""

    name: str
    data: bytes


def bundle() -> Bundle:
    """Return the package's source files as a tar.gz that is the same for the same files."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for path in sorted(PACKAGE.rglob("*.py")):
            content = path.read_bytes()
            entry = tarfile.TarInfo(f"deploy/{path.relative_to(PACKAGE).as_posix()}")
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    name = hashlib.sha256(raw.getvalue()).hexdigest()[:16]
    return Bundle(name, gzip.compress(raw.getvalue(), mtime=0))
