"""What a verb works with: settings, hosts, log and caller, opened and closed in one place."""

from __future__ import annotations

import getpass
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from deploy import settings as configuration
from deploy import terminal
from deploy.host import Host, local_host
from deploy.layout import Layout
from deploy.log import RunLog
from deploy.outcome import Invalid
from deploy.redact import Redactor, secret_values
from deploy.run import Caller, Run
from deploy.settings import Settings

LONGEST_WAIT = 86_400  # seconds
SANDBOX = ".sandbox/ssh_config"
ACTORS = ("GITHUB_ACTOR", "GITLAB_USER_LOGIN", "BUILD_USER_ID")


@dataclass(frozen=True)
class Session:
    """An open connection to a host, and all that is known before a run.

    Args:
        folder: The project on this machine.
        settings: What invoke.yaml and the environment say.
        target: The host.
        here: This machine.
        log: Where everything is written.
        caller: Who is at work.
        wait: Seconds that its runs wait for one that holds the lock.
    """

    folder: Path
    settings: Settings
    target: Host
    here: Host
    log: RunLog
    caller: Caller
    wait: float = 0

    @property
    def layout(self) -> Layout:
        """Return where everything lies on the target."""
        return Layout(self.settings.deploy.root)

    def print(self, text: str) -> None:
        """Print to stdout what was asked for, redacted."""
        terminal.out(self.log.redactor.mask(text))

    def waiting(self, wait: float) -> Session:
        """Return the same session, whose runs wait for one that holds the lock.

        Args:
            wait: Seconds.

        Raises:
            Invalid: They make no sense.
        """
        if not 0 <= wait <= LONGEST_WAIT:
            raise Invalid(
                f"--wait must be a number of seconds, at most {LONGEST_WAIT}", where="--wait"
            )
        return replace(self, wait=wait)

    def run(self, kind: str, builder: Host, ref: str = "") -> Run:
        """Return a new run on the target."""
        return Run(
            kind=kind,
            settings=self.settings,
            folder=self.folder,
            target=self.target,
            builder=builder,
            log=self.log,
            caller=self.caller,
            started=datetime.now(UTC).replace(microsecond=0),
            ref=ref,
            wait=self.wait,
        )


@contextmanager
def opened(
    folder: Path, host: str, tool: str, environ: Mapping[str, str] | None = None
) -> Iterator[Session]:
    """Open what a verb works with, and close it at the end.

    Args:
        folder: The project: where invoke.yaml is.
        host: A host by name; empty means the one in invoke.yaml.
        tool: `inv` or `fab`.
        environ: The environment, by default that of this process.

    Raises:
        Invalid: The settings or the host's name are wrong.
    """
    given = dict(os.environ if environ is None else environ)
    settings = configuration.load(folder, given)
    if host:
        settings = _on(settings, host)
    secrets = secret_values(given_secrets(settings))
    log = RunLog(Redactor().with_values(secrets))
    here = local_host(log)
    name = settings.deploy.host
    target = here if name == "local" else _remote(name, ssh_files(folder), log)
    try:
        yield Session(folder, settings, target, here, log, caller(folder, given, tool))
    finally:
        target.close()


def ssh_files(folder: Path) -> tuple[Path, ...]:
    """Return the SSH configurations of a project, the first that sets an option wins."""
    return (folder / SANDBOX, Path("~/.ssh/config").expanduser(), Path("/etc/ssh/ssh_config"))


def _remote(name: str, files: tuple[Path, ...], log: RunLog) -> Host:
    from deploy.host.ssh import ssh_host  # noqa: PLC0415 - slow, and for a remote host alone

    return ssh_host(name, files, log)


def given_secrets(settings: Settings) -> dict[str, str]:
    """Return the secrets that the settings hold, by the names of their variables."""
    environment = settings.environment
    passed = {name: value.get_secret_value() for name, value in environment.passed.items()}
    return {**passed, "TELEGRAM_API_TOKEN": environment.telegram_token.get_secret_value()}


def caller(folder: Path, environ: Mapping[str, str], tool: str) -> Caller:
    """Return who is at work: the CI's actor, else the git user, else the system's."""
    actor = next((environ[name] for name in ACTORS if environ.get(name)), "")
    trigger = f"{tool} in CI" if environ.get("CI") else tool
    return Caller(actor or _git_user(folder) or _system_user(), platform.node(), trigger)


def _on(settings: Settings, host: str) -> Settings:
    try:
        deploy = type(settings.deploy).model_validate(
            {**settings.deploy.model_dump(), "host": host}
        )
    except ValueError as error:
        raise Invalid(
            f"{host[:80]!r} is no host name", where="--host", next_step="name it as ssh does"
        ) from error
    return settings.model_copy(update={"deploy": deploy})


def _git_user(folder: Path) -> str:
    try:
        found = subprocess.run(
            ("git", "-C", str(folder), "config", "user.name"),
            capture_output=True,
            text=True,
            errors="replace",  # git keeps any bytes as a name
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()


def _system_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
