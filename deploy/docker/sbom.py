"""What an image is made of: its Python and Debian packages, as a CycloneDX document."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from deploy.command import Command, script

PYTHON, DEBIAN = "python", "debian"
# Each Python on the path has libraries of its own. Isolated, so that nothing of the application
# is run; an image without a shell, Python or dpkg simply has less to tell.
LIST = r"""
exec docker run --rm --network none --read-only --cap-drop ALL --user 65534:65534 \
  --security-opt no-new-privileges --pids-limit 64 --memory 256m --entrypoint sh -- "$1" -c "$2"
"""
INSIDE = r"""
dpkg-query --show --showformat 'debian\t${Package}\t${Version}\t${Architecture}\n' 2>/dev/null
IFS=:
for folder in $PATH; do
  if [ -x "$folder/python3" ]; then "$folder/python3" -I -B -c '
from importlib.metadata import distributions
for item in distributions():
    print("python", item.metadata["Name"], item.version, "", sep="\t")
'; fi
done
exit 0
"""
# What a line must look like: the image may print whatever it likes.
LINE = re.compile(
    rf"({PYTHON}|{DEBIAN})\t([A-Za-z0-9][A-Za-z0-9+._-]{{0,99}})"
    r"\t([A-Za-z0-9][A-Za-z0-9.+~:!_-]{0,99})\t([a-z0-9-]{0,20})"
)
NAMED = 20  # packages that a record names of each kind of difference


@dataclass(frozen=True, order=True)
class Package:
    """One package: what manages it, name, version, and of Debian's the architecture."""

    kind: str
    name: str
    version: str
    architecture: str = ""

    @property
    def purl(self) -> str:
        """Return its package URL, which names it in every database of vulnerabilities."""
        version = quote(self.version, safe="")
        if self.kind == DEBIAN:
            return f"pkg:deb/debian/{quote(self.name)}@{version}?arch={self.architecture}"
        return f"pkg:pypi/{re.sub(r'[-_.]+', '-', self.name).lower()}@{version}"


@dataclass(frozen=True)
class Difference:
    """What has come, gone and changed since another list; a change names both versions."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]


def listing(image: str) -> Command:
    """Ask an image for its packages, in a container that can do nothing else."""
    return script(LIST, image, INSIDE, deadline=60)


def parse(text: str) -> tuple[Package, ...]:
    """Given what the image said, return its packages, each once; other lines are nothing."""
    found = (LINE.fullmatch(line) for line in text.splitlines())
    return tuple(sorted({Package(*match.groups()) for match in found if match}))


def document(packages: Sequence[Package], name: str, version: str, at: str) -> bytes:
    """Return the CycloneDX document of an image.

    Args:
        packages: What it is made of.
        name: What is made of that.
        version: Its version.
        at: ISO time, UTC.
    """
    found = {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": at,
            "component": {"type": "container", "name": name, "version": version},
        },
        "components": [
            {
                "type": "library",
                "bom-ref": item.purl,
                "name": item.name,
                "version": item.version,
                "purl": item.purl,
            }
            for item in {item.purl: item for item in packages}.values()
        ],
    }
    return json.dumps(found, separators=(",", ":")).encode() + b"\n"


def packages_in(text: str) -> tuple[Package, ...] | None:
    """Given a document of ours, return its packages, or None when it makes no sense."""
    try:
        components = json.loads(text)["components"]
        return tuple(sorted(_package(item) for item in components))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _package(item: Mapping[str, Any]) -> Package:
    purl = str(item["purl"])
    kind = DEBIAN if purl.startswith("pkg:deb/") else PYTHON
    _, _, architecture = purl.partition("?arch=")
    return Package(kind, str(item["name"]), str(item["version"]), architecture)


def difference(before: Sequence[Package], after: Sequence[Package]) -> Difference:
    """Return what has come, gone and changed from one list to another."""
    old, new = _versions(before), _versions(after)
    return Difference(
        added=tuple(f"{key[1]} {new[key]}" for key in sorted(new.keys() - old.keys())),
        removed=tuple(f"{key[1]} {old[key]}" for key in sorted(old.keys() - new.keys())),
        changed=tuple(
            f"{key[1]} {old[key]} → {new[key]}"
            for key in sorted(old.keys() & new.keys())
            if old[key] != new[key]
        ),
    )


def _versions(packages: Sequence[Package]) -> dict[tuple[str, str], str]:
    """Return the versions of each package; two Pythons may hold two of one."""
    found: dict[tuple[str, str], list[str]] = {}
    for item in packages:
        versions = found.setdefault((item.kind, item.name), [])
        if item.version not in versions:
            versions.append(item.version)
    return {key: ", ".join(versions) for key, versions in found.items()}


def as_json(
    packages: Sequence[Package], size: int, against: str, changes: Difference | None
) -> dict[str, Any]:
    """Return what a record tells of it: counts, and the first of each kind of difference.

    Args:
        packages: What the image is made of.
        size: Bytes of the document.
        against: The release that it is compared with, empty for none.
        changes: The difference to that, None when it is not known.
    """
    counts = {kind: sum(item.kind == kind for item in packages) for kind in (PYTHON, DEBIAN)}
    found = {**counts, "bytes": size, "against": against if changes else "", "counts": None}
    if changes is None:
        return found
    lists = {"added": changes.added, "removed": changes.removed, "changed": changes.changed}
    return {
        **found,
        "counts": {name: len(names) for name, names in lists.items()},
        **{name: list(names[:NAMED]) for name, names in lists.items()},
    }
