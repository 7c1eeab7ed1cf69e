"""The migrations on a copy first: whether they work on what is there, and let one go back.

The copy is made of the backup just taken, in a server of its own on a network of its own, from
which nothing leads to the live database or out of the host.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from deploy import host as hosts
from deploy import journal, smoke
from deploy.command import script
from deploy.docker.compose import Place
from deploy.dotenv import parse_env
from deploy.host import Host
from deploy.host.process import CommandFailed
from deploy.outcome import DataFailed, DeployFailed, Invalid
from deploy.pipeline import Done
from deploy.postgres import access, address, operations
from deploy.postgres.backup import Backup
from deploy.postgres.operations import Migration
from deploy.releases import Release
from deploy.run import Run
from deploy.smoke import Finding
from deploy.steps import apart, live

if TYPE_CHECKING:
    from deploy.settings import Settings

ELSEWHERE = "the database is not one of the compose file, of which there could be a copy"
UNREADABLE = "the backup is encrypted, and nothing on the host can read it"
State = Literal["safe", "unsafe", "unknown"]

MB = 1_000_000
OF_THE_HOST = frozenset({"disk", "memory"})  # tests that say nothing about a release
OF_EVERYBODY = frozenset({apart.START, "restarts", "responsiveness"})
VERSIONS = """
cd -- "$1" 2>/dev/null || exit 0
for file in *.py; do
  if [ -f "$file" ]; then printf '%s %s\\n' "$file" "$(base64 -w 0 -- "$file")"; fi
done
"""
SIZE = "select pg_database_size(current_database());"
FREE = "df -Pk -- \"$(docker info --format '{{.DockerRootDir}}')\" | awk 'NR == 2 {print $4}'"


@dataclass(frozen=True)
class Verdict:
    """Whether one could go back to the live release after the migrations.

    Args:
        state: `unknown` when its tests say nothing on a copy.
        why: What is wrong, or what the verdict leaves out.
        findings: What the tests of the live release found on the migrated copy.
    """

    state: State
    why: str = ""
    findings: tuple[Finding, ...] = ()


def rehearse(run: Run) -> Done:
    """Migrate a copy of the database, and test on it the release that one would go back to.

    Before that their text is looked at: what it says may not be seen on a copy nobody uses.

    Raises:
        DeployFailed: The migrations failed.
    """
    if not run.settings.migrate.command:
        run.facts["rehearsal"] = {"state": "skipped", "why": "no migrations are configured"}
        return Done("no migrations are configured", "skipped")
    heads = live.heads(run)
    run.facts["migrations"] = {"before": heads, "after": heads}  # as far as this run may get
    found = _waiting(run, heads)
    harm = [said for item in found or () for said in item.findings]
    pending = None if found is None else [item.revision or item.file for item in found]
    run.say_all(harm)
    try:
        return _rehearsed(run, may_wait=found is None or bool(found))
    except DeployFailed as error:
        run.facts["rehearsal"] = {"state": "failed", "why": error.what}
        raise
    finally:
        cut = {"state": "unknown", "why": "it was cut short"}
        told = run.facts.get("rehearsal", cut)
        run.facts["rehearsal"] = {**told, "pending": pending, "operations": harm}


def _rehearsed(run: Run, *, may_wait: bool) -> Done:
    try:
        needless = _needless(run, may_wait=may_wait)
        if needless or not (run.previous and run.backup):
            run.facts["rehearsal"] = {"state": "skipped", "why": needless}
            return Done(needless, "skipped")
        verdict, seconds = _hold(run, run.previous, run.backup)
    except (CommandFailed, DataFailed, Invalid) as error:  # the fault is that of the copy
        why = f"no copy could be made: {error.as_text()}"
        run.facts["rehearsal"] = _fact(Verdict("unknown", why), None)
        run.warn(f"the migrations could not be rehearsed: {error.as_text()}")
        return Done(error.what, "warned")
    return _told(run, verdict, seconds)


def judge(before: Sequence[Finding], after: Sequence[Finding]) -> Verdict:
    """Given what the tests of a release found on a copy before the migrations and after, judge.

    A test that has failed before says nothing: what it needs may be out of reach there.
    """
    told = [item for item in before if item.name not in OF_THE_HOST]
    good = {item.name for item in told if item.ok}
    lost = [item for item in told if not item.ok]
    broken = [item for item in after if item.name in good and not item.ok]
    checks = {item.name for item in told} - OF_EVERYBODY or {apart.START}
    if not good & checks:
        return Verdict("unknown", f"its tests fail on a copy as it is: {_sentences(lost)}")
    if broken:
        return Verdict("unsafe", _sentences(broken), tuple(after))
    left_out = ", ".join(item.name for item in lost)
    return Verdict("safe", f"not judged: {left_out}" if lost else "", tuple(after))


def _sentences(findings: Sequence[Finding]) -> str:
    return "; ".join(f"{item.name}: {item.detail}" for item in findings)


def _fact(verdict: Verdict, seconds: float | None) -> dict[str, Any]:
    findings = smoke.as_json(verdict.findings)
    return {"state": verdict.state, "why": verdict.why, "seconds": seconds, "findings": findings}


def _needless(run: Run, *, may_wait: bool) -> str:
    """Return why there is nothing to rehearse, or no way to; empty when there is."""
    settings = run.settings
    if not settings.migrate.rehearse_max_mb:
        return "migrate.rehearse_max_mb is 0"
    if run.previous is None:
        return "nothing is live yet"
    if settings.database.client_image:
        return ELSEWHERE
    identity = access.container(run.target, settings)
    if not identity or run.backup is None:
        return "there is no good backup of this run" if identity else "no database container runs"
    if not may_wait:
        return "no migration is pending"
    unreadable = UNREADABLE if run.backup.encrypted else ""
    return unreadable or _elsewhere(run, run.previous) or _too_large(run, identity)


def _waiting(run: Run, heads: Sequence[str]) -> Sequence[Migration] | None:
    folder = run.settings.migrate.versions
    files = versions(run.target, f"{_place(run).source}/{folder}") if folder else {}
    return waiting(files, heads)


def waiting(files: Mapping[str, str], heads: Sequence[str]) -> Sequence[Migration] | None:
    """Return the migrations that wait, as far as their files tell; None when they do not."""
    everything = {item.revision for item in operations.pending(files, ())}
    if not files or not everything.issuperset(heads):  # an older commit, say
        return None
    return operations.pending(files, heads)


def _place(run: Run) -> Place:
    return run.layout.place(run.release.id, run.release.tag)


def versions(host: Host, folder: str) -> dict[str, str]:
    """Return the texts of the migrations in a folder of a host, by name."""
    return parse_versions(journal.bookkeeping(host).ask(script(VERSIONS, folder)))


def parse_versions(lines: str) -> dict[str, str]:
    """Given a line for each file, its name and its content in base64, return the texts by name."""
    found = {}
    for line in lines.splitlines():
        name, _, text = line.rpartition(" ")
        found[name] = base64.b64decode(text).decode(errors="replace")
    return found


def _elsewhere(run: Run, before: Release) -> str:
    """Say so when either release finds its database elsewhere: the copy could not stand in."""
    wanted, quiet = run.settings.database.service, journal.bookkeeping(run.target)
    for place in (_place(run), run.layout.place(before.id, before.tag)):
        url = parse_env(hosts.read(quiet, place.env_file)).get("DATABASE_URL", "")
        host = address.parameters(url)["host"] if url else "nothing"
        if host != wanted:
            return f"DATABASE_URL of {place.release} names {host}, not {wanted}"
    return ""


def _too_large(run: Run, identity: str) -> str:
    """Say so when the database is larger than it may be, or the copy would fill the disk."""
    most, spare = run.settings.migrate.rehearse_max_mb, run.settings.deploy.minimum_free_mb
    size = int(run.target.ask(access.query(identity, SIZE))) // MB
    if size > most:
        return f"the database has {size} MB, more than migrate.rehearse_max_mb"
    free = int(run.target.ask(script(FREE))) * 1024 // MB
    if free < spare + 2 * size:
        return f"{free} MB are free: too few for a copy of {size} MB and deploy.minimum_free_mb"
    return ""


def _hold(run: Run, previous: Release, dump: Backup) -> tuple[Verdict, float]:
    copy = apart.copy_of(run, previous)
    try:
        apart.make(run, copy, previous, dump)
        before = apart.test(run, copy, copy.served)
        seconds = apart.migrate(run, copy)
        known = judge(before, ()).state != "unknown"
        after = apart.test(run, copy, _without(copy.served, before)) if known else ()
    finally:
        apart.remove(run, copy)
    return judge(before, after), seconds


def _told(run: Run, verdict: Verdict, seconds: float) -> Done:
    run.facts["rehearsal"] = _fact(verdict, round(seconds, 3))
    run.say_all(
        f"{'✓' if item.ok else '✗'} {item.name}: {item.detail}" for item in verdict.findings
    )
    took = f"a copy was migrated in {seconds:.1f} s"
    if verdict.state == "unknown":
        return Done(f"{took}; whether it is safe to roll back is unknown: {verdict.why}")
    run.release = replace(run.release, reversible=verdict.state)
    if verdict.state == "unsafe":
        run.warn(
            f"not safe to roll back: on the migrated copy the live release fails: {verdict.why}"
        )
        return Done(f"{took}; not safe to roll back", "warned")
    return Done(f"{took}; safe to roll back{verdict.why and f', {verdict.why}'}")


def _without(settings: Settings, findings: Sequence[Finding]) -> Settings:
    """Return settings without the checks that failed: to ask them again would only take time."""
    failed = {item.name for item in findings if not item.ok}
    checks = tuple(item for item in settings.smoke.checks if item.name not in failed)
    kept = settings.smoke.model_copy(update={"checks": checks})
    return settings.model_copy(update={"smoke": kept})
