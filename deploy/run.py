"""What one run knows: given at its start, found out on the way."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.git import Source
from deploy.host import Host
from deploy.layout import Layout, stamp
from deploy.lock import Held, Owner
from deploy.log import RunLog
from deploy.postgres.backup import Backup
from deploy.postgres.restore import Restored
from deploy.probe import Probe
from deploy.releases import Release

if TYPE_CHECKING:
    from deploy.settings import Settings


@dataclass(frozen=True)
class Caller:
    """Who started a run, from where, and by what."""

    who: str
    machine: str
    trigger: str


@dataclass
class StepRecord:
    """How one step of a run went."""

    name: str
    state: str
    seconds: float = 0.0
    note: str = ""


@dataclass
class Run:
    """One run of the pipeline on one host.

    Args:
        kind: `deploy`, `rollback`, `backup` or `restore`.
        settings: What invoke.yaml and the environment say.
        folder: The project on this machine.
        target: The host that is deployed to.
        builder: The host that tests and builds: this machine, or the target itself.
        log: Where everything is written.
        caller: Who started it.
        started: When, UTC.
        ref: What the user asked for, empty for the default.
        wait: Seconds to wait for another run that holds the lock.
        mark: Tells it from a run of the same second on another host, where both leave things.
    """

    kind: str
    settings: Settings
    folder: Path
    target: Host
    builder: Host
    log: RunLog
    caller: Caller
    started: datetime
    ref: str = ""
    wait: float = 0
    mark: str = field(default_factory=lambda: secrets.token_hex(4))

    source: Source = field(init=False)
    release: Release = field(init=False)
    previous: Release | None = None
    releases: tuple[Release, ...] = ()
    build_folder: str = ""
    scratch: str = ""
    held: Held | None = None
    detached: bool = False
    switched: bool = False
    committed: bool = False
    probe: Probe | None = None
    steps: list[StepRecord] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    noted: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    backup: Backup | None = None
    restored: Restored | None = None

    @property
    def id(self) -> str:
        """Return the name of the run, which its log and record carry too."""
        return stamp(self.started)

    @property
    def layout(self) -> Layout:
        """Return where everything lies on the target."""
        return Layout(self.settings.deploy.root)

    @property
    def env_file(self) -> str:
        """Return the environment that the run's database is named in: a new release's or ours."""
        if self.kind == "deploy" and hasattr(self, "release"):
            return self.layout.place(self.release.id, self.release.tag).env_file
        return self.layout.env_file

    @property
    def owner(self) -> Owner:
        """Return this run as the owner of the lock."""
        since = self.started.strftime("%Y-%m-%d %H:%M:%S UTC")
        return Owner(self.id, self.kind, self.caller.who, self.caller.machine, since)

    @property
    def journaled(self) -> bool:
        """Tell whether the host keeps a journal of this run: it holds a lock there."""
        return self.held is not None or self.detached

    @property
    def bind(self) -> str:
        """Return the address the front door listens on: this machine's stays private."""
        return "127.0.0.1" if self.target.name == "local" else self.settings.proxy.bind

    @property
    def sha(self) -> str:
        """Return the commit the run is about, empty while unknown."""
        return self.source.sha if hasattr(self, "source") else ""

    def warn(self, text: str) -> None:
        """Say and remember something that does not stop the run."""
        self.warnings.append(self.log.redactor.mask(text))
        self.log.say(f"warning: {text}")

    def say_all(self, lines: Iterable[str]) -> None:
        """Say several lines."""
        for line in lines:
            self.log.say(f"  {line}")
