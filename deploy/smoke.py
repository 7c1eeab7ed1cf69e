"""The smoke tests: what a release must show, asked at whatever address it answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from deploy import health
from deploy.command import Command, script
from deploy.docker.engine import Container
from deploy.health import Address, Answer
from deploy.host import Host
from deploy.outcome import SmokeFailed

if TYPE_CHECKING:
    from deploy.settings import Check, Settings

RESPONSES = 5  # requests that the responsiveness is taken from

RESOURCES = """
awk '/^MemTotal:/ {total=$2} /^MemAvailable:/ {free=$2} END {print "memory", total, free}' \
  /proc/meminfo
df -Pk -- "$@" | awk 'NR > 1 {print "disk", $2, $4}'
"""


@dataclass(frozen=True)
class Finding:
    """What one smoke test found."""

    name: str
    ok: bool
    detail: str


def run(
    host: Host, settings: Settings, base: Address, containers: Sequence[Container]
) -> tuple[Finding, ...]:
    """Run every smoke test against an address; a failing one is asked again for a while.

    Args:
        host: Where the requests are sent from.
        settings: What is to be tested.
        base: The address.
        containers: The containers of the release.
    """
    findings = [_until_good(host, settings, base, check) for check in settings.smoke.checks]
    findings.append(_responsive(host, settings, base))
    findings.extend(resources(host.run(_resources(settings)).out, settings))
    findings.append(restarts(containers, settings))
    return tuple(findings)


def metered(
    host: Host, settings: Settings, base: Address, containers: Sequence[Container]
) -> tuple[Finding, ...]:
    """Run every smoke test, and see what they make the release spend; as `run` otherwise."""
    path = settings.budget.field
    if not path:
        return run(host, settings, base, containers)
    health_path, timeout = settings.app.health_path, settings.health.timeout
    before = health.field(health.ask(host, base, health_path, timeout).body, path)
    findings = run(host, settings, base, containers)
    after = health.field(health.ask(host, base, health_path, timeout).body, path)
    return (*findings, spending(before, after, settings))


def spending(before: Any, after: Any, settings: Settings) -> Finding:
    """Given what a release says it has spent, before its smoke tests and after, judge it."""
    path, most = settings.budget.field, settings.budget.smoke_tokens
    wrong = [item for item in (before, after) if type(item) is not int or item < 0]
    if wrong:
        detail = f"{path} is {wrong[0]!r:.60}, not a number of tokens"
        return Finding("budget", ok=False, detail=detail)
    if after < before:
        detail = f"{path} fell from {before} to {after}: it does not count what was spent"
        return Finding("budget", ok=False, detail=detail)
    detail = f"the smoke tests spent {after - before} tokens, at most {most} wanted"
    return Finding("budget", ok=after - before <= most, detail=detail)


def must_pass(findings: Sequence[Finding], where: str) -> None:
    """Hold a release to what its smoke tests found.

    Raises:
        SmokeFailed: A test failed; `why` names each.
    """
    bad = [item for item in findings if not item.ok]
    if bad:
        names = ", ".join(item.name for item in bad)
        raise SmokeFailed(
            f"{len(bad)} of {len(findings)} smoke tests failed: {names}",
            where=where,
            why="\n".join(f"{item.name}: {item.detail}" for item in bad),
            next_step="correct the cause and deploy again",
        )


def as_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return the findings as they stand in a record."""
    return [asdict(item) for item in findings]


def judge(check: Check, answer: Answer) -> Finding:
    """Given the answer to a check, say whether it is what it must be."""
    if answer.status != check.status:
        return Finding(
            check.name, ok=False, detail=f"wanted {check.status}, got {answer.as_text()}"
        )
    if not check.field:
        return Finding(check.name, ok=True, detail=f"{answer.status} after {answer.seconds:.3f} s")
    value = health.field(answer.body, check.field)
    detail = f"{check.field} is {value!r}"
    if str(value) in check.one_of:
        return Finding(check.name, ok=True, detail=detail)
    return Finding(check.name, ok=False, detail=f"{detail}, not one of {', '.join(check.one_of)}")


def resources(text: str, settings: Settings) -> tuple[Finding, ...]:
    """Given sizes and free parts in kB, say whether disk and memory suffice."""
    wanted = {
        "disk": settings.smoke.minimum_free_disk_percent,
        "memory": settings.smoke.minimum_free_memory_percent,
    }
    lowest: dict[str, float] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] in wanted and words[1].isdigit() and words[2].isdigit():
            share = 100 * int(words[2]) / max(1, int(words[1]))
            lowest[words[0]] = min(share, lowest.get(words[0], 100.0))
    return tuple(
        Finding(
            name,
            ok=name in lowest and lowest[name] >= limit,
            detail=_share(lowest.get(name), limit),
        )
        for name, limit in wanted.items()
    )


def restarts(containers: Sequence[Container], settings: Settings) -> Finding:
    """Say whether the containers stay up."""
    most = max((item.restarts for item in containers), default=0)
    down = [item.name for item in containers if not item.running]
    detail = f"{most} restarts" + (f", not running: {', '.join(down)}" if down else "")
    good = bool(containers) and not down and most <= settings.smoke.maximum_restarts
    return Finding("restarts", ok=good, detail=detail if containers else "no container")


def _share(free: float | None, limit: float) -> str:
    if free is None:
        return "the host did not say"
    return f"{free:.0f} % free, at least {limit:g} % wanted"


def _until_good(host: Host, settings: Settings, base: Address, check: Check) -> Finding:
    ends = time.monotonic() + settings.smoke.retry_seconds
    wanted, timeout = settings.health.consecutive, settings.health.timeout
    while True:
        answers = health.ask_often(host, base, check.path, timeout, wanted)
        findings = [judge(check, item) for item in answers]
        bad = next((item for item in findings if not item.ok), None)
        if bad is None:
            return findings[-1]
        left = ends - time.monotonic()
        if left <= 0:
            return replace(bad, detail=f"{bad.detail}; never {wanted} good answers in a row")
        time.sleep(min(settings.health.interval, left))


def _responsive(host: Host, settings: Settings, base: Address) -> Finding:
    path = settings.app.health_path
    answers = health.ask_often(host, base, path, settings.health.timeout, RESPONSES)
    slowest = max(item.seconds for item in answers)
    limit = settings.smoke.responsive_seconds
    detail = f"slowest of {RESPONSES}: {slowest:.3f} s, at most {limit:g} s wanted"
    bad = next((item for item in answers if not item.good), None)
    if bad:
        return Finding("responsiveness", ok=False, detail=bad.as_text())
    return Finding("responsiveness", ok=slowest <= limit, detail=detail)


def _resources(settings: Settings) -> Command:
    return script(RESOURCES, settings.deploy.root)
