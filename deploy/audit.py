"""Known vulnerabilities in the pinned dependencies, as pip-audit finds them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from deploy.outcome import Invalid

FILES = "requirements/*.txt"
AUDIT = ("-m", "pip_audit", "--progress-spinner", "off", "--timeout", "10", "--format", "json")
# What is pinned with its hash stands there whole: nothing is resolved, nothing is installed.
PINNED = ("--disable-pip", "--require-hashes", "--requirement")
DEADLINE = 300.0  # seconds


@dataclass(frozen=True)
class Audit:
    """What came of a file.

    Args:
        audited: How many packages were looked up.
        findings: The vulnerabilities, a line each.
        unknown: The packages that the source knows nothing of.
        why: Why nothing could be looked up, empty when it could.
    """

    audited: int = 0
    findings: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    why: str = ""

    def as_text(self) -> str:
        """Say it in a line; that nothing was looked up is not to be taken for a good answer."""
        if self.why:
            return f"NOT AUDITED, the source of vulnerabilities cannot be asked: {self.why}"
        told = f"{self.audited} packages audited, {len(self.findings)} vulnerabilities known"
        if not self.unknown:
            return told
        return f"{told}; NOT AUDITED, not known to the source: {', '.join(self.unknown)}"


def run(folder: Path) -> str:
    """Audit the pinned dependencies of a project.

    Args:
        folder: The project.

    Returns:
        What came of each file.

    Raises:
        Invalid: A vulnerability is known; all are named, and what could not be looked up. Or
            there is nothing to audit.
    """
    paths = sorted(folder.glob(FILES))
    if not paths:
        raise Invalid(
            "There is nothing to audit",
            where=str(folder),
            why=f"no dependencies are pinned in {FILES}",
            next_step="in requirements: uv pip compile --generate-hashes NAME.in -o NAME.txt",
        )
    with ThreadPoolExecutor() as pool:
        found = dict(zip((path.name for path in paths), pool.map(_audit, paths), strict=True))
    bad = sorted({line for item in found.values() for line in item.findings})
    gaps = [f"{name}: {item.as_text()}" for name, item in found.items() if item.why or item.unknown]
    if bad:
        raise Invalid(
            f"{len(bad)} known vulnerabilities in the dependencies",
            where=", ".join(name for name, item in found.items() if item.findings),
            why="\n".join([*bad, *gaps]),
            next_step="ask for a fixed version in requirements/*.in, then run the command in the"
            " head of the .txt",
        )
    return "\n".join(f"{name}: {item.as_text()}" for name, item in found.items())


def _audit(path: Path) -> Audit:
    argv = (sys.executable, *AUDIT, *PINNED, str(path))
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE, check=False)
    except subprocess.TimeoutExpired:
        return Audit(why=f"no answer within {DEADLINE:g} s")
    return parse(done.stdout, done.stderr)


def parse(out: str, err: str) -> Audit:
    """Given what pip-audit wrote, return what came of it.

    Without a connection it writes no document; where only a registry is, which knows names but
    no vulnerabilities, it skips every package and calls that good.
    """
    try:
        items = json.loads(out)["dependencies"]
        skipped = tuple(str(item["name"]) for item in items if "skip_reason" in item)
        looked = [item for item in items if "skip_reason" not in item]
        findings = tuple(
            f"{item['name']} {item['version']}: {bad['id']}{_fixed(bad['fix_versions'])}"
            for item in looked
            for bad in item["vulns"]
        )
    except (ValueError, KeyError, TypeError):
        lines = [line.strip() for line in err.splitlines() if line.strip()]
        return Audit(why=lines[-1][:200] if lines else "pip-audit said nothing")
    if not looked:
        return Audit(why=f"it knows none of {len(skipped)} packages")
    return Audit(len(looked), findings, skipped)


def _fixed(versions: Sequence[str]) -> str:
    return f", fixed in {', '.join(map(str, versions))}" if versions else ", no fix yet"
