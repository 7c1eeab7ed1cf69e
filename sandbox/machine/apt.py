"""Debian packages: installed as usual, or two binaries taken out of a newer release's."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from deploy.checks.packages import parse_candidates
from deploy.outcome import Invalid
from sandbox.shell import ask, must

DEFAULT_MIRROR = "http://deb.debian.org/debian"
DEFAULT_SECURITY = "http://deb.debian.org/debian-security"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
NEXT = "check that the package mirror is reachable (apt-get update), then run it again"


@dataclass(frozen=True)
class Mirrors:
    """Where this machine gets Debian from."""

    main: str = DEFAULT_MIRROR
    security: str = DEFAULT_SECURITY


def sources_in(text: str) -> list[tuple[str, str]]:
    """Given a sources file of either kind, return its pairs of address and suites."""
    pairs: list[tuple[str, str]] = []
    fields: dict[str, str] = {}
    for line in [*text.splitlines(), ""]:
        bare = line.split("#", 1)[0].strip()
        if bare.startswith("deb "):
            words = [word for word in bare.split() if "=" not in word and word not in "[]"]
            if len(words) >= 3:
                pairs.append((words[1], words[2]))
        elif ":" in bare:
            name, _, value = bare.partition(":")
            fields[name.lower()] = value.strip()
        elif not line.strip():
            off = fields.get("enabled", "yes").lower() == "no"
            suites = fields.get("suites", "")
            pairs += [] if off else [(uri, suites) for uri in fields.get("uris", "").split()]
            fields = {}
    return pairs


def mirrors_in(texts: Iterable[str]) -> Mirrors:
    """Given the texts of a Debian machine's sources files, return its mirrors."""
    main: list[str] = []
    security: list[str] = []
    for text in texts:
        for uri, suites in sources_in(text):
            if not uri.startswith(("http://", "https://")) or "/debian" not in uri:
                continue
            (security if "-security" in suites else main).append(uri.rstrip("/"))
    return Mirrors(
        main[0] if main else DEFAULT_MIRROR,
        security[0] if security else DEFAULT_SECURITY,
    )


def mirrors() -> Mirrors:
    """Return this machine's Debian mirrors; the public ones when it is not Debian."""
    release = Path("/etc/os-release")
    if not release.is_file() or "\nID=debian\n" not in f"\n{release.read_text()}\n":
        return Mirrors()
    folder = Path("/etc/apt")
    parts = folder / "sources.list.d"
    files = [
        folder / "sources.list",
        *sorted(parts.glob("*.sources")),
        *sorted(parts.glob("*.list")),
    ]
    return mirrors_in(file.read_text() for file in files if file.is_file())


def as_root(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command as it has to be started to run as root."""
    return argv if os.geteuid() == 0 else ("sudo", "-n", *argv)


def candidates(packages: Iterable[str]) -> dict[str, str]:
    """Ask apt which of these packages it could install, and in which version."""
    answer = ask(("apt-cache", "policy", *packages), deadline=60)
    return parse_candidates(answer.out)


def refresh() -> None:
    """Fetch the lists of packages."""
    must(as_root(("apt-get", "-q", "update")), deadline=300, next_step=NEXT)


def install(packages: Iterable[str]) -> None:
    """Install system packages; the list of packages must be fresh."""
    names = tuple(packages)
    # Where the client comes inside docker.io there is no package of its own.
    if "docker-cli" in names and "docker-cli" not in candidates(("docker-cli",)):
        rest = tuple(name for name in names if name not in ("docker-cli", "docker.io"))
        names = (*rest, "docker.io")
    settings = ("-o", "DPkg::Lock::Timeout=180", "-o", "Dpkg::Options::=--force-confold")
    must(
        as_root(
            (
                *("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", *settings),
                *("install", "--no-install-recommends", *names),
            )
        ),
        deadline=900,
        next_step=NEXT,
    )


def fetch_plugins(plugins: Iterable[str], target: Path) -> None:
    """Take plugins out of Debian 13's packages, which Debian 12 runs but does not have.

    apt does it, in folders of its own: signature and hash of what comes are checked,
    and the machine's own list of sources stays as it is.

    Args:
        plugins: `compose`, `buildx`.
        target: The folder of Docker CLI plugins.
    """
    names = [f"docker-{plugin}" for plugin in plugins]
    with tempfile.TemporaryDirectory(prefix="server-agent-apt-") as name:
        folder = Path(name)
        settings = private_apt(folder)
        must(("apt-get", "-q", *settings, "update"), deadline=300, next_step=NEXT, cwd=folder)
        must(
            ("apt-get", "-q", *settings, "download", *names),
            deadline=300,
            next_step=NEXT,
            cwd=folder,
        )
        for package in sorted(folder.glob("*.deb")):
            must(
                ("dpkg-deb", "-x", str(package), str(folder / "unpacked")),
                deadline=120,
                next_step=NEXT,
            )
        target.mkdir(parents=True, exist_ok=True)
        for plugin in names:
            place(folder / "unpacked/usr/libexec/docker/cli-plugins" / plugin, target / plugin)


def private_apt(folder: Path) -> tuple[str, ...]:
    """Lay out folders for an apt that knows Debian 13 alone, and return its settings."""
    if not Path(KEYRING).is_file():
        raise Invalid(
            "Debian's signing keys are not here, so Compose and buildx cannot be fetched safely",
            where=KEYRING,
            next_step="install the Docker plugins compose and buildx by hand",
        )
    (folder / "lists" / "partial").mkdir(parents=True)
    (folder / "cache" / "archives" / "partial").mkdir(parents=True)
    source = folder / "trixie.sources"
    source.write_text(
        "Types: deb\n"
        f"URIs: {mirrors().main}\n"
        "Suites: trixie\n"
        "Components: main\n"
        f"Signed-By: {KEYRING}\n"
    )
    options = {
        "Dir::Etc::sourcelist": source,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }
    return tuple(word for key, value in options.items() for word in ("-o", f"{key}={value}"))


def place(source: Path, target: Path) -> None:
    """Put a program where it belongs, whole or not at all."""
    half = target.with_name(f".{target.name}.new")
    shutil.copyfile(source, half)
    half.chmod(0o755)
    half.replace(target)
