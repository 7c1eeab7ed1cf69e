"""What the parts of a set-up work with."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from deploy.host import SSH_PORT, Host
from deploy.layout import Layout
from deploy.origin import Address
from deploy.outcome import Invalid
from deploy.session import Session

# host:path or user@host:path, as scp writes it.
SCHEMES = ("ssh", "git+ssh")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")
SCP = re.compile(r"(?:[^@/:]+@)?([A-Za-z0-9][A-Za-z0-9._-]*):(?!//)(.+)")
PAGES = {
    "github.com": "https://github.com/{}/settings/keys/new",
    "gitlab.com": "https://gitlab.com/{}/-/settings/repository",
}


@dataclass(frozen=True)
class Wish:
    """What the user asked for; what is empty stays as it is.

    Args:
        url: Where the host fetches the code.
        email: Who git says it is.
        name: The same.
        install: Whether to install what the host lacks.
    """

    url: str = ""
    email: str = ""
    name: str = ""
    install: bool = False


@dataclass(frozen=True)
class Server:
    """Where git reaches a repository over SSH."""

    name: str
    port: int
    path: str

    @property
    def entry(self) -> str:
        """Return how known_hosts names it."""
        return self.name if self.port == SSH_PORT else f"[{self.name}]:{self.port}"

    @property
    def page(self) -> str:
        """Return where its deploy keys are entered."""
        page = PAGES.get(self.name, "")
        return page.format(self.path) if page else f"deploy keys of {self.path} on {self.name}"


def server_of(url: str) -> Server | None:
    """Given the URL of a repository, return where SSH leads to, None when it does not go there.

    Raises:
        Invalid: It is no address.
    """
    if "://" not in url:
        match = SCP.fullmatch(url)
        return Server(match[1], SSH_PORT, _bare(match[2])) if match else None
    try:
        parts = urlsplit(url)
        name, port = parts.hostname or "", parts.port or SSH_PORT
    except ValueError as error:
        raise _no_address(str(error)) from error
    if parts.scheme not in SCHEMES:
        return None
    if not NAME.fullmatch(name):
        raise _no_address("it names no host")
    return Server(name, port, _bare(parts.path))


def _no_address(why: str) -> Invalid:
    return Invalid(
        "This is no address of a repository",
        where="--github-url",
        why=why,
        next_step="--github-url git@github.com:OWNER/REPOSITORY.git",
    )


def _bare(path: str) -> str:
    return path.strip("/").removesuffix(".git")


@dataclass(frozen=True)
class Site:
    """A host that is set up.

    Args:
        session: The session.
        wish: What the user asked for.
        address: Where the host fetches the code; None while that is unknown.
    """

    session: Session
    wish: Wish
    address: Address | None

    @property
    def host(self) -> Host:
        """Return the host."""
        return self.session.target

    @property
    def layout(self) -> Layout:
        """Return where everything lies there."""
        return self.session.layout

    @property
    def server(self) -> Server | None:
        """Return where SSH leads to for the code, None when it is fetched some other way."""
        return server_of(self.address.url) if self.address else None


def nothing(_site: Site) -> tuple[str, ...]:
    """Have nothing to say."""
    return ()


@dataclass(frozen=True)
class Part:
    """One thing that is looked at, and put right.

    Args:
        name: What it is called.
        needs: The parts that must be right before it.
        lacks: Says what is to be done, each in a few words that follow "will"; nothing when all
            is as it should be. Raises what stands in the way.
        provide: Does it; may have been killed at any point before.
        tell: Says what the user needs to know of it, once it is right.
    """

    name: str
    needs: tuple[str, ...]
    lacks: Callable[[Site], tuple[str, ...]]
    provide: Callable[[Site], None]
    tell: Callable[[Site], tuple[str, ...]] = nothing
