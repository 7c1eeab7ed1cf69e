"""Whether a release answers, asked from its host; and why not, when it does not."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from deploy.command import Command, command
from deploy.docker import engine
from deploy.docker.engine import Container
from deploy.host import Host
from deploy.host.process import KILLED
from deploy.outcome import DeployFailed, Invalid

if TYPE_CHECKING:
    from deploy.settings import Settings

MARK = "\n#deploy-answer "
SPLIT = re.compile(rf"{MARK}(\d{{3}} [0-9.]+)")
SHOWN = 400  # characters of an answer that are shown
LOG_LINES = 50
ENGINE = 90.0  # seconds that a host which restarted, or its engine, gets to bring that up
RECENT = 60.0  # seconds, beside the wait, in which a container's endings tell of this release


@dataclass(frozen=True)
class Answer:
    """What a GET brought back; status 0 when nothing did."""

    status: int
    body: str
    seconds: float
    error: str = ""
    url: str = ""

    @property
    def good(self) -> bool:
        """Tell whether it was a success."""
        return 200 <= self.status < 300

    def as_text(self) -> str:
        """Say it in a line."""
        asked = f"GET {self.url}: " if self.url else ""
        if not self.status:
            return f"{asked}{self.error or 'no answer'}"
        body = " ".join(self.body.split())[:SHOWN]
        return f"{asked}{self.status} after {self.seconds:.2f} s: {body}"


@dataclass(frozen=True)
class Address:
    """Where something answers.

    Args:
        url: Scheme, host and port.
        at: The IP address that is connected to, whatever the name in it stands for; empty: what
            it stands for. The front door is asked on its host also before its name is known
            anywhere, and with a certificate that only browsers are to judge.
    """

    url: str
    at: str = ""

    def __str__(self) -> str:
        return self.url


def get(address: Address, path: str, timeout: float) -> Command:
    """Return the command that asks an address and tells status and seconds behind the body."""
    at = ("--insecure", "--connect-to", f"::{address.at}:") if address.at else ()
    told = f"{MARK}%{{http_code}} %{{time_total}}"
    return command(
        "curl",
        "--silent",
        "--show-error",
        "--max-time",
        f"{timeout:g}",
        "--header",
        "Connection: close",
        "--noproxy",
        "*",
        "--write-out",
        told,
        *at,
        "--url",
        f"{address.url}{path}",
        deadline=timeout + 5,
    )


def parse_answer(out: str, err: str) -> Answer:
    """Given what curl wrote, return the answer."""
    body, _, told = out.rpartition(MARK)
    status, _, seconds = told.partition(" ")
    try:
        return Answer(int(status), body, float(seconds), err.strip())
    except ValueError:
        return Answer(0, "", 0.0, err.strip() or "curl said nothing that makes sense")


def ask_often(
    host: Host, address: Address, path: str, timeout: float, times: int
) -> tuple[Answer, ...]:
    """GET a path several times in a row, each over a connection of its own, by one command."""
    one = get(address, path, timeout)
    more = ("--next", *one.argv[1:]) * (times - 1)
    deadline = times * timeout + 5
    result = host.run(Command((*one.argv, *more), deadline=deadline))
    parts = SPLIT.split(result.out)
    whole = [f"{body}{MARK}{told}" for body, told in zip(parts[::2], parts[1::2], strict=False)]
    found = [parse_answer(text, result.err) for text in whole[:times]]
    none = Answer(0, "", 0.0, result.err.strip() or "no answer")
    return (*found, *([none] * (times - len(found))))


def ask(host: Host, address: Address, path: str, timeout: float) -> Answer:
    """GET a path from a host."""
    result = host.run(get(address, path, timeout))
    return parse_answer(result.out, result.err)


def need_engine(host: Host) -> None:
    """See that a host's Docker engine answers: without it, all that can be said is misleading.

    Raises:
        Invalid: It does not.
    """
    result = host.run(engine.server_version())
    if result.ok:
        return
    there = "" if host.name == "local" else f"ssh {host.name} "
    raise Invalid(
        f"No Docker engine answers on {host.name}",
        where=host.name,
        why=result.tail(3),
        next_step=f"{there}docker version; when it is not started: {there}systemctl start docker",
    )


def await_engine(host: Host) -> None:
    """Wait until a host's Docker engine answers, or does not within `ENGINE` seconds."""
    ends = time.monotonic() + ENGINE
    while not host.run(engine.server_version()).ok and time.monotonic() < ends:
        _pause(1)


def await_good(host: Host, settings: Settings, address: Address) -> Answer:
    """Ask for health until it is good or health.startup_wait has passed; return the last answer."""
    ends = time.monotonic() + settings.health.startup_wait
    while True:
        answer = ask(host, address, settings.app.health_path, settings.health.timeout)
        left = ends - time.monotonic()
        if answer.good or left <= 0:
            return answer
        _pause(min(settings.health.interval, left))


def containers_of(host: Host, settings: Settings, release: str) -> tuple[Container, ...]:
    """Return the containers of a release, the one that takes the traffic first."""
    found = engine.parse_containers(host.ask(engine.inspect_project(settings.deploy.project)))
    mine = [item for item in found if item.release == release]
    order = {name: number for number, name in enumerate(settings.app.services)}
    return tuple(sorted(mine, key=lambda item: order.get(item.service, len(order))))


def address(container: Container, settings: Settings) -> Address:
    """Return the address a release answers at on its host, before it has the front door.

    Raises:
        DeployFailed: It has none.
    """
    ip = container.addresses.get(settings.proxy.network, "")
    if not ip:
        raise DeployFailed(
            f"Container {container.name} is not on network {settings.proxy.network}",
            next_step="correct proxy.network in invoke.yaml",
        )
    return Address(f"http://{ip}:{settings.app.port}")


def wait_healthy(host: Host, settings: Settings, release: str) -> float:
    """Wait until every container of a release runs and the first answers well, three times over.

    Returns:
        The seconds it took.

    Raises:
        DeployFailed: A container ended, or health.startup_wait passed; `why` holds the
            last answer, the effective settings, and what the containers said.
    """
    began = time.monotonic()
    ends = began + settings.health.startup_wait
    good = 0
    last = "no answer yet"
    waited = f" within {settings.health.startup_wait:g} s"
    while True:
        looked = time.monotonic()
        containers = containers_of(host, settings, release)
        found = trouble(containers, settings)
        if found and found.final:
            last, waited = found.text, ""
            break
        if found:
            good, last = 0, found.text
        else:
            answer = _worst(host, settings, containers)
            good = good + 1 if answer.good else 0
            last = answer.as_text()
            if good >= settings.health.consecutive:
                return time.monotonic() - began
        now = time.monotonic()
        if now >= ends:
            break
        _pause(min(max(0.0, looked + settings.health.interval - now), ends - now))
    raise DeployFailed(
        f"Release {release} did not become healthy{waited}",
        where=host.name,
        why=explain(host, settings, release, last),
        next_step="correct the cause above and deploy again; what is live was not touched",
    )


def _worst(host: Host, settings: Settings, containers: tuple[Container, ...]) -> Answer:
    """Ask every replica of the first service; return the first bad answer, or the last one."""
    replicas = [item for item in containers if item.service == settings.app.services[0]]
    for item in replicas:
        base, path = address(item, settings), settings.app.health_path
        answer = replace(ask(host, base, path, settings.health.timeout), url=f"{base}{path}")
        if not answer.good:
            break
    return answer


@dataclass(frozen=True)
class Trouble:
    """Why a release is not healthy, and whether waiting cannot help."""

    text: str
    final: bool


def trouble(containers: tuple[Container, ...], settings: Settings) -> Trouble | None:
    """Say what is wrong with the containers of a release, None when all of them run well."""
    there = {item.service for item in containers}
    missing = [name for name in settings.app.services if name not in there]
    if missing:
        return Trouble(f"no container for {', '.join(missing)}", final=True)
    for item in containers:
        if item.status in ("exited", "dead", "restarting") or item.restarts:
            if item.restarts:
                return Trouble(f"{item.name} ended and was started again", final=True)
            return Trouble(f"{item.name} is {item.status}, exit code {item.exit_code}", final=True)
        if not item.running:
            return Trouble(f"{item.name} is {item.status}", final=False)
        if item.service != settings.app.services[0] and item.health not in ("", "healthy"):
            return Trouble(f"{item.name} is {item.health}", final=False)
    return None


def explain(host: Host, settings: Settings, release: str, last: str) -> str:
    """Return all that helps to find out why a release is not healthy."""
    health = settings.health
    effective = (
        f"settings: port {settings.app.port}, path {settings.app.health_path},"
        f" startup_wait {health.startup_wait:g} s, timeout {health.timeout:g} s,"
        f" {health.consecutive} in a row"
    )
    lines = [last, effective]
    for item in containers_of(host, settings, release):
        codes: tuple[str, ...] = ()
        oom = False
        if not item.running or item.restarts:  # else what ended was its life before this one
            ended = host.run(engine.endings(item.id, health.startup_wait + RECENT))
            codes, oom = engine.parse_endings(ended.out)
        how = f"ended with exit code {', '.join(codes)}" if codes else f"exit code {item.exit_code}"
        memory = out_of_memory(codes or (str(item.exit_code),), known=oom or item.oom_killed)
        lines.append(f"{item.name}: {item.status}, {how}, out of memory: {memory}")
        said = host.run(engine.logs(item.id, LOG_LINES))
        lines += [f"  | {line}" for line in said.tail(LOG_LINES).splitlines()]
    return "\n".join(lines)


def out_of_memory(codes: Sequence[str], *, known: bool) -> str:
    """Say whether a container was out of memory.

    Args:
        codes: What its processes ended with.
        known: Whether the engine says so, which it does not when it is told too late by the kernel.
    """
    if known:
        return "yes"
    return "perhaps, it was killed" if str(KILLED) in codes else "no"


def _pause(seconds: float) -> None:
    time.sleep(seconds)  # the interval of a poll that has a deadline


def field(body: str, path: str) -> Any:
    """Given a JSON body and a dotted path, return the value there, or None."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
