"""The certificates that this machine trusts beyond what Debian ships."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
SHIPPED = Path("/usr/share/ca-certificates")
BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def blocks(text: str) -> list[str]:
    """Given a bundle, return its certificates, each written the same way."""
    return ["\n".join(found.split("\n")) + "\n" for found in BLOCK.findall(text.replace("\r", ""))]


def beyond(bundle: str, shipped: Iterable[str]) -> list[str]:
    """Return the certificates of the bundle that were not shipped, each once."""
    known = {block for text in shipped for block in blocks(text)}
    return [block for block in dict.fromkeys(blocks(bundle)) if block not in known]


def write_extra(folder: Path, bundle: Path = BUNDLE, shipped: Path = SHIPPED) -> None:
    """Write this machine's own certificates into a folder, one file each.

    Behind a connection that inspects TLS nothing else verifies what a build fetches.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # COPY fails on a folder without any file.
    (folder / "README").write_text("certificates of the machine that built this image\n")
    if not bundle.is_file():
        return
    texts = [file.read_text(errors="replace") for file in sorted(shipped.rglob("*.crt"))]
    for number, block in enumerate(beyond(bundle.read_text(errors="replace"), texts)):
        (folder / f"machine-{number}.crt").write_text(block)
