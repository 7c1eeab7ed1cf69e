"""A disk that is soon full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(folder: Path, size: str = "256k") -> Iterator[Path]:
    """Mount a small disk at a new folder until the block ends."""
    folder.mkdir()
    options = f"size={size},mode=0700"
    words = ("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    subprocess.run(words, check=True, timeout=30)
    try:
        yield folder
    finally:
        subprocess.run(("umount", str(folder)), check=True, timeout=30)
