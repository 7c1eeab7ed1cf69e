"""All checks in a row: whatever one of them runs into, the others still say what they see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from deploy.called import as_called
from deploy.checks.finding import Finding, State, good, stop, stopping, warning
from deploy.doctor import host as there
from deploy.doctor import laptop
from deploy.doctor.visit import Check, Visit
from deploy.host import local_host
from deploy.log import RunLog
from deploy.outcome import Exit, Invalid, Unreachable, failure_of
from deploy.redact import Redactor
from deploy.session import opened

HERE = "here"
SIGNS = {State.OK: "✓", State.WARNING: "!", State.STOPS: "✗"}
Look = Callable[[], Iterable[Finding]]


def examine(folder: Path, name: str, tool: str) -> dict[str, Any]:
    """Look at everything that a deployment leans on, and change nothing.

    Args:
        folder: The project.
        name: A host by name; empty means the one in invoke.yaml.
        tool: `inv` or `fab`: where the code comes from, and who tests and builds it.

    Returns:
        What `doctor --json` prints.
    """
    try:
        with opened(folder, name, tool) as session:
            visit, target = Visit(session, tool), session.target.name
            fine = good("settings", "invoke.yaml and the environment are valid")
            found = [replace(fine, where=HERE), *_here(folder, tool, _bound(laptop.CHECKS, visit))]
            found += _there(target, _bound(there.CHECKS, visit))
            redactor = session.log.redactor
    except Invalid as error:
        target, redactor = name, Redactor()
        wrong = stop("settings", f"{error.what}: {error.why} [{error.where}]", error.next_step)
        found = [replace(wrong, where=HERE), *_here(folder, tool, {})]
    told = [replace(item, cure=as_called(item.cure, tool, name)) for item in found]
    return {
        "host": target,
        "ready": not stopping(told),
        "findings": [redactor.mask_all(asdict(item)) for item in told],
    }


def _bound(checks: Mapping[str, Check], visit: Visit) -> dict[str, Look]:
    return {name: partial(check, visit) for name, check in checks.items()}


def _here(folder: Path, tool: str, more: Mapping[str, Look]) -> Iterator[Finding]:
    here = local_host(RunLog(Redactor(), None))
    looks: dict[str, Look] = {
        ".env": lambda: laptop.env_file(folder),
        "git": lambda: laptop.checkout(here, folder, needed=tool == "inv"),
        **more,
    }
    for name, look in looks.items():
        yield from (replace(item, where=HERE) for item in looked(name, look))


def _there(host: str, looks: Mapping[str, Look]) -> Iterator[Finding]:
    try:
        for name, look in looks.items():
            yield from (replace(item, where=host) for item in looked(name, look))
    except Unreachable as error:
        what = f"{error.what}: {error.why}" if error.why else error.what
        yield replace(stop("reachable", what, error.next_step), where=host)


def looked(name: str, look: Look) -> tuple[Finding, ...]:
    """Return what a check finds, or that it could not look.

    Raises:
        Unreachable: The host is gone: no other check will get through.
    """
    try:
        return tuple(look())
    except Unreachable:
        raise
    except Exception as error:  # noqa: BLE001 - the other checks go on, whatever it was
        failure = failure_of(error)
        why = f"{failure.what}: {failure.why}" if failure.why else failure.what
        return (warning(name, f"this could not be looked at: {why}", failure.next_step),)


def code(found: Mapping[str, Any]) -> Exit:
    """Return the exit code that what was found stands for."""
    return Exit.OK if found["ready"] else Exit.INVALID


def as_text(found: Mapping[str, Any]) -> str:
    """Return what was found, a line for each thing, and the cure below what is wrong."""
    lines, place = [], ""
    for item in found["findings"]:
        if item["where"] != place:
            place = item["where"]
            lines.append(f"{place}:")
        lines.append(f"  {SIGNS[State(item['state'])]} {item['name']:<12}{item['what']}")
        if item["cure"]:
            lines.append(f"    {'':<12}→ {item['cure']}")
    return "\n".join([*lines, _summary([item["state"] for item in found["findings"]])])


def _summary(states: list[str]) -> str:
    stops, warnings = states.count(State.STOPS), states.count(State.WARNING)
    first = f"{stops} of these would stop a deployment" if stops else "Nothing stops a deployment"
    return f"{first}; {warnings} warning{'' if warnings == 1 else 's'}."
