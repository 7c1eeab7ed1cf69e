"""A record in words: for the terminal, and for the Master's telephone."""

from __future__ import annotations

from typing import Any

from deploy.report.record import headline

FIRST_LINES = 8  # of what a failed step said, in a message: the answer and the settings
LONGEST_LINE = 120
LAST_LINES = 50  # the same: the last lines of the log


def message(record: dict[str, Any], title: str) -> str:
    """Return the message to the Master about a run."""
    lines = [headline(record), sentence(record, title), ""]
    lines += [
        f"SHA: {record['sha'][:7] or 'unknown'}",
        f"Branch: {record['ref'] or 'default'}",
        f"Host: {record['host']}",
        f"Duration: {record['seconds']:.0f} s",
        f"Tests: {tests(record)}",
        f"Build: {state(record, 'build')}",
        f"Smoke: {_smoke(record)}",
    ]
    lines += [f"Rehearsal: {rehearsal(record)}"] if _rehearsed(record) else []
    lines += [f"Migration: {text}" for text in operations(record)]
    lines += [f"Budget: {item['detail']}" for item in _found(record, "budget")]
    lines += [f"Approval: {approval(record)}"] if record.get("approval") else []
    lines += [f"Front door: {availability(record)}"] if record["availability"] else []
    lines += [f"Warning: {text}" for text in record["warnings"]]
    error = record["error"]
    if error:
        failed = failed_step(record)
        lines += ["", f"Failed step: {failed or 'none'} (exit code {record['code']})"]
        lines += excerpt(error["error"].splitlines())
        if error["next"]:
            lines += [f"Next: {error['next']}"]
    return "\n".join(lines)


def excerpt(lines: list[str]) -> list[str]:
    """Return the beginning of a text, which says what is wrong, and its end, which may say why."""
    lines = [line[:LONGEST_LINE] for line in lines]
    if len(lines) <= FIRST_LINES + LAST_LINES:
        return lines
    return [*lines[:FIRST_LINES], "…", *lines[-LAST_LINES:]]


def sentence(record: dict[str, Any], title: str) -> str:
    """Return what happened, in a sentence."""
    where = f"{title} on {record['host']}"
    release, previous = record["release"] or "no release", record["previous"] or "nothing"
    if record["code"] == 0:
        done = {
            "deploy": f"{where}: {release} is live.",
            "rollback": f"{where}: rolled back from {previous} to {release}.",
            "rotate": f"{where}: the database has a new password, which {release} knows.",
            "restore": f"{where}: {_restored(record)}.",
        }
        return done.get(record["kind"], f"{where}: {record['kind']} done.")
    first = str(record["error"]["error"]).splitlines()[0]
    return f"{where}: {record['kind']} {record['outcome']}. {first}"


def _restored(record: dict[str, Any]) -> str:
    beside = (record.get("restore") or {}).get("beside")
    return f"a backup was restored as {beside}" if beside else "the database was restored"


def report(record: dict[str, Any]) -> str:
    """Return the report on a run."""
    lines = [
        sentence(record, record["project"]),
        f"  run       {record['id']}  {record['kind']} by {record['who']} ({record['trigger']})",
        f"  commit    {record['sha'][:12] or 'unknown'}  {record['ref']}",
        f"  outcome   {record['outcome']} ({record['code']}) after {record['seconds']:.1f} s",
    ]
    lines += [f"  tests     {tests(record)}"] if record["tests"] else []
    if record["migrations"]:
        before, after = record["migrations"]["before"], record["migrations"]["after"]
        lines.append(f"  database  {', '.join(before) or 'empty'} → {', '.join(after) or 'empty'}")
    lines += [f"  rehearsal {rehearsal(record)}"] if record.get("rehearsal") else []
    lines += [f"  migration {text}" for text in operations(record)]
    lines += [f"  approval  {approval(record)}"] if record.get("approval") else []
    if record["backup"]:
        lines.append(f"  backup    {record['backup'].get('name') or record['backup']['state']}")
    lines += [f"  packages  {text}" for text in packages(record)]
    lines += [f"  answers   {availability(record)}"] if record["availability"] else []
    lines += [f"  warning   {text}" for text in record["warnings"]]
    lines.append("  steps")
    for step in record["steps"]:
        note = f"  {step['note']}" if step["note"] else ""
        lines.append(f"    {step['name']:<10}{step['state']:<8}{step['seconds']:>8.2f} s{note}")
    for item in record["smoke"] or []:
        mark = "✓" if item["ok"] else "✗"
        lines.append(f"    {mark} {item['name']}: {item['detail']}")
    lines.append(f"  log       {record['log']}")
    return "\n".join(lines)


def packages(record: dict[str, Any]) -> list[str]:
    """Return how many packages the image is made of, and what has changed since the one before."""
    found = record.get("sbom")
    if not found:
        return []
    lines = [f"{found['python']} Python, {found['debian']} Debian"]
    counts = found["counts"]
    if counts is None:
        return lines
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    lines[0] += f"; since {found['against']}: {told or 'the same'}"
    return lines + [f"{name}: {item}" for name in counts for item in found[name]]


def availability(record: dict[str, Any]) -> str:
    """Return how the front door answered while a release was replaced."""
    found = record["availability"]
    return (
        f"{found['sent']} requests, {found['failed']} failed,"
        f" slowest {found['slowest']:.3f} s, longest gap {found['longest_gap']:.3f} s"
    )


def approval(record: dict[str, Any]) -> str:
    """Return what the Master said to a deployment."""
    found = record["approval"]
    return f"{found['decision']} after {found['seconds']:.0f} s"


def operations(record: dict[str, Any]) -> list[str]:
    """Return what migrations do that cannot be undone by code, or that blocks users."""
    return list((record.get("rehearsal") or {}).get("operations", ()))


def pending(record: dict[str, Any]) -> str:
    """Return the migrations that wait."""
    found = (record.get("rehearsal") or {}).get("pending")
    return "it is not known which" if found is None else ", ".join(found) or "none"


def rehearsal(record: dict[str, Any]) -> str:
    """Return what the migration of a copy showed."""
    found = record["rehearsal"]
    why = " ".join(found["why"].split())[:LONGEST_LINE]
    told = {
        "safe": f"safe to roll back{why and f', {why}'}",
        "unsafe": f"not safe to roll back: {why}",
        "failed": why,
        "unknown": f"it is unknown whether it is safe to roll back: {why}",
    }.get(found["state"], f"{found['state']}, {why}")
    seconds = found.get("seconds")
    return told if seconds is None else f"{told} (migrated a copy in {seconds:.1f} s)"


def _rehearsed(record: dict[str, Any]) -> bool:
    found = record.get("rehearsal")
    return found is not None and str(found["state"]) != "skipped"


def history(records: list[dict[str, Any]]) -> str:
    """Return the runs of a host, a line each."""
    if not records:
        return "There was no run yet."
    return "\n".join(
        f"{item['id']}  {item['kind']:<9}{item['outcome']:<16}{item['sha'][:7]:<9}"
        f"{item['seconds']:>7.1f} s  {item['who']}"
        for item in records
    )


def tests(record: dict[str, Any]) -> str:
    """Return the figures of the tests."""
    figures = record["tests"]
    if not figures:
        return state(record, "test")
    bad = figures["failed"] + figures["errors"]
    covered = f", coverage {figures['coverage']:g} %" if "coverage" in figures else ""
    return f"{figures['passed']:g} passed, {bad:g} failed{covered}"


def state(record: dict[str, Any], name: str) -> str:
    """Return how a step of the run went."""
    for step in record["steps"]:
        if step["name"] == name:
            return str(step["state"])
    return "not run"


def failed_step(record: dict[str, Any]) -> str:
    """Return the step that failed, empty when none did."""
    return next((step["name"] for step in record["steps"] if step["state"] == "failed"), "")


def _found(record: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [item for item in record["smoke"] or () if item["name"] == name]


def _smoke(record: dict[str, Any]) -> str:
    found = record["smoke"]
    if not found:
        return "not run"
    bad = [item["name"] for item in found if not item["ok"]]
    return f"failed: {', '.join(bad)}" if bad else f"{len(found)} passed"
