"""An image on its way, without the layers that are there already.

`python3 -m deploy.docker.thin IMAGE LAYER...` writes what `docker save` does, but for these layers,
named by the digests of their content. The engine that loads it looks for a layer by what it is
before it opens the file, and so never misses them. Needs nothing but the standard library.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Collection, Sequence
from typing import IO

PIECE = 1 << 20  # bytes that are read at a time
BLOBS = "blobs/sha256/"  # in the layout of OCI the name says what a file holds
LEGACY = "/layer.tar"  # in the older one it has to be read


def common(layers: Sequence[str], there: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Given an image's layers, and those of the images that are there, return what need not travel.

    A layer is what it is only upon those below it, so it is the longest common beginning.
    """
    longest = 0
    for other in there:
        pairs = zip(layers, other, strict=False)
        same = next((number for number, (a, b) in enumerate(pairs) if a != b), None)
        longest = max(longest, min(len(layers), len(other)) if same is None else same)
    kept = set(layers[longest:])
    return tuple(layer for layer in layers[:longest] if layer not in kept)


def main(words: Sequence[str]) -> int:
    """Write an image to the standard output, without some layers.

    Returns:
        The exit code of `docker save`.
    """
    image, *layers = words
    saving = subprocess.Popen(("docker", "save", "--", image), stdout=subprocess.PIPE)
    with saving:
        if saving.stdout:
            sift(saving.stdout, sys.stdout.buffer, frozenset(layers))
            while saving.stdout.read(PIECE):  # what pads the end; unread it would look like a loss
                pass
    return saving.returncode


def sift(source: IO[bytes], sink: IO[bytes], layers: Collection[str]) -> None:
    """Copy a saved image, but for some layers, each named `sha256:...`."""
    with (
        tarfile.open(fileobj=source, mode="r|") as arriving,
        tarfile.open(fileobj=sink, mode="w|") as leaving,
    ):
        for member in arriving:
            content = arriving.extractfile(member) if member.isfile() else None
            if content is None:
                leaving.addfile(member)
            elif member.name.startswith(BLOBS):
                if f"sha256:{member.name.removeprefix(BLOBS)}" not in layers:
                    leaving.addfile(member, content)
            elif member.name.endswith(LEGACY):
                _read_first(leaving, member, content, layers)
            else:
                leaving.addfile(member, content)


def _read_first(
    leaving: tarfile.TarFile, member: tarfile.TarInfo, content: IO[bytes], layers: Collection[str]
) -> None:
    digest = hashlib.sha256()
    with tempfile.TemporaryFile() as kept:
        while piece := content.read(PIECE):
            digest.update(piece)
            kept.write(piece)
        if f"sha256:{digest.hexdigest()}" not in layers:
            kept.seek(0)
            leaving.addfile(member, kept)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
