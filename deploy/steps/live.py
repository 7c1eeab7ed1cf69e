"""From image to live: migrate, start, health, smoke tests, the switch, and what follows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from deploy import health, releases, smoke, traffic
from deploy import host as hosts
from deploy.command import Command
from deploy.docker import compose, engine
from deploy.docker.engine import Container
from deploy.health import Address
from deploy.host import Host, Result
from deploy.host.process import CommandFailed
from deploy.journal import bookkeeping
from deploy.outcome import DataFailed, DeployFailed, Failure, SmokeFailed
from deploy.pipeline import Done, undisturbed
from deploy.postgres import access
from deploy.releases import Release
from deploy.run import Run
from deploy.served import own
from deploy.smoke import Finding

if TYPE_CHECKING:
    from deploy.settings import Settings

Test = Callable[[Host, "Settings", Address, Sequence[Container]], Sequence[Finding]]
RETRIES = 3  # of a migration that gave way
# How PostgreSQL and its clients say so, in whatever language the server speaks.
GAVE_UP = ("canceling statement due to lock timeout", "LockNotAvailable", "55P03")


def migrate(run: Run) -> Done:
    """Run the migrations in a container of the new image, with the new environment."""
    settings = run.settings.migrate
    if not settings.command:
        return Done("no migrations are configured", "skipped")
    before = heads(run)
    run.facts["migrations"] = {"before": before, "after": before}
    place = run.layout.place(run.release.id, run.release.tag)
    with _alone(run):
        result = apply(run, compose.migration(run.settings, place))
    after = heads(run)
    run.facts["migrations"] = {"before": before, "after": after}
    run.release = replace(run.release, heads=tuple(after))
    if not result.ok:
        raise DeployFailed(
            "The migrations failed",
            where=run.target.name,
            why=result.tail(30),
            next_step="inv report says what it did: the live release goes on, the database may have"
            " been changed; correct the migration and deploy again",
        )
    same = f"already at {_names(after)}"
    return Done(same if before == after else f"{_names(before)} → {_names(after)}")


def apply(run: Run, migration: Command) -> Result:
    """Run a migration, again when it gave way to somebody who held a lock."""
    tries = 1
    while not (result := run.target.run(migration, run.log.show)).ok:
        if tries > RETRIES or not any(sign in f"{result.out}{result.err}" for sign in GAVE_UP):
            break
        limit = run.settings.migrate.lock_timeout
        run.log.say(f"  a lock was not to be had within {limit:g} s, migrating again ({tries})")
        tries += 1
    return result


def _alone(run: Run) -> AbstractContextManager[None]:
    settings = run.settings
    try:
        database = access.database(run.target, settings, run.env_file)
    except DataFailed as error:  # the run's failure is not one of a backup
        raise DeployFailed(
            error.what, where=error.where, why=error.why, next_step=error.next_step
        ) from error
    if database is None:
        run.log.say("  no database container runs: nobody else is kept from migrating meanwhile")
        return nullcontext()
    hold = settings.migrate.deadline * (1 + RETRIES)
    return access.alone(database, settings.deploy.project, f"deploy {run.id}", hold)


def end_migration(run: Run) -> None:
    """See that no migration goes on: who interrupts us interrupts the container too."""
    run.target.ask(engine.remove_one_offs(run.settings.deploy.project))


def heads(run: Run) -> list[str]:
    """Return the migration heads the database is at, none when nobody asks or none ran yet."""
    sql = run.settings.migrate.heads_query
    try:
        identity = access.container(run.target, run.settings, run.env_file) if sql else ""
    except DataFailed as error:
        run.log.write(f"the database cannot be asked: {error.as_text()}")
        return []
    if not identity:
        return []
    result = run.target.run(access.query(identity, sql))
    return sorted(result.out.split()) if result.ok else []


def _names(found: Sequence[str]) -> str:
    return ", ".join(found) or "nothing"


def start(run: Run) -> Done:
    """Start the new release beside the one that is live."""
    place = run.layout.place(run.release.id, run.release.tag)
    try:
        run.target.ask(compose.up_release(run.settings, place))
    except CommandFailed as error:
        raise DeployFailed(
            "The containers of the new release could not be started",
            where=run.target.name,
            why=error.why,
            next_step="correct the compose file and deploy again",
        ) from error
    found = health.containers_of(run.target, run.settings, run.release.id)
    images = {item.service: item.image_id for item in found}
    run.release = replace(run.release, images=images, containers=len(found))
    first = run.settings.app.services[0]
    image = run.release.image
    wrong = [item.name for item in found if item.service == first and item.image_id != image]
    if wrong:
        raise DeployFailed(
            f"{wrong[0]} runs another image than the one that was built", where=run.target.name
        )
    releases.save(run.target, run.layout, run.release)
    return Done(", ".join(item.name for item in found))


def stop_new(run: Run) -> None:
    """Remove the containers of a release that did not make it, and make it nobody's target."""
    health.await_engine(run.target)  # that it went away may be why we are here
    releases.save(run.target, run.layout, releases.settled(run.release, "failed"))
    traffic.remove(run.target, run.settings, run.release)
    traffic.give_tag_back(run.target, run.release, run.previous)


def wait_healthy(run: Run) -> Done:
    """Wait until the release is healthy."""
    seconds = health.wait_healthy(run.target, run.settings, run.release.id)
    return Done(f"healthy after {seconds:.1f} s")


def smoke_beside(run: Run) -> Done:
    """Test a new release at its own address, before it takes any traffic, and what that costs."""
    return _beside(run, smoke.metered)


def smoke_woken(run: Run) -> Done:
    """Test a release that was live before at its own address, before it takes any traffic."""
    return _beside(run, smoke.run)


def _beside(run: Run, test: Test) -> Done:
    found = health.containers_of(run.target, run.settings, run.release.id)
    first = [item for item in found if item.service == run.settings.app.services[0]]
    for item in first:
        base = health.address(item, run.settings)
        done = _smoke(run, base, "smoke", test(run.target, run.settings, base, found))
    return done


def smoke_front(run: Run) -> Done:
    """Test the release once more, through the front door."""
    found = health.containers_of(run.target, run.settings, run.release.id)
    base = traffic.inside(run.settings)
    return _smoke(run, base, "smoke_front", smoke.run(run.target, run.settings, base, found))


def _smoke(run: Run, base: Address, fact: str, findings: Sequence[Finding]) -> Done:
    run.facts[fact] = smoke.as_json(findings)
    run.say_all(f"{'✓' if item.ok else '✗'} {item.name}: {item.detail}" for item in findings)
    try:
        smoke.must_pass(findings, str(base))
    except SmokeFailed as error:
        why = health.explain(run.target, run.settings, run.release.id, error.why)
        raise SmokeFailed(
            error.what, where=error.where, why=why, next_step=error.next_step
        ) from error
    return Done(f"{len(findings)} passed at {base}")


def switch(run: Run) -> Done:
    """Send the traffic to the new release, and give it the names of the live one."""
    run.switched = True
    traffic.point(run.target, run.settings, run.release)
    if run.probe:
        run.probe.begin()
    traffic.claim_names(run.target, run.settings, run.release)
    before = run.previous.id if run.previous else "nothing"
    return Done(f"{before} → {run.release.id}")


def watch(run: Run) -> Done:
    """See the release stay well for a while under traffic, before anything depends on it.

    Raises:
        SmokeFailed: A container ended or was restarted, or too many answers were errors.
    """
    settings, began = run.settings, time.monotonic()
    while (seconds := time.monotonic() - began) < settings.smoke.watch_seconds:
        found = health.containers_of(run.target, settings, run.release.id)
        trouble = health.trouble(found, settings)
        seen = run.probe.since(began) if run.probe else None
        most = settings.smoke.watch_failed_percent / 100
        if seen and seen.failed > max(1, most * seen.sent):
            trouble = health.Trouble(f"{seen.as_text()} since the switch", final=True)
        if trouble:
            why = health.explain(run.target, settings, run.release.id, trouble.text)
            raise SmokeFailed(
                f"The release did not stay well: {trouble.text}",
                where=run.target.name,
                why=why,
                next_step="correct the cause and deploy again",
            )
        time.sleep(min(settings.health.interval, settings.smoke.watch_seconds - seconds))
    return Done(f"well for {settings.smoke.watch_seconds:g} s")


def switch_back(run: Run) -> None:
    """Send the traffic to the release that had it before, and see it answer."""
    if not run.switched:
        return
    health.await_engine(run.target)
    if run.previous:
        try:
            traffic.wake(run.target, run.settings, run.previous)
        except Failure:  # what takes the traffic may run all the same
            if not traffic.runs(run.target, run.settings, run.previous):
                raise
    traffic.point(run.target, run.settings, run.previous)
    if run.previous:
        traffic.claim_names(run.target, run.settings, run.previous)


def publish(run: Run) -> Done:
    """Write down that the release is live and good: from here on there is no way back."""
    _make_live(run)
    place = run.layout.place(run.release.id, run.release.tag)
    quiet = bookkeeping(run.target)
    try:
        hosts.replace(quiet, run.layout.env_file, hosts.read(quiet, place.env_file).encode())
    except Failure as error:  # it is live, and stays so
        run.warn(f"the environment could not be kept for the next release: {error.as_text()}")
    return Done(f"{run.settings.deploy.project}:latest is {run.release.tag}")


def _make_live(run: Run) -> None:
    now = releases.next_moment(run.releases, datetime.now(UTC))
    run.release = releases.settled(run.release, "good", now)
    releases.save(run.target, run.layout, run.release)
    run.committed = True
    _tags(run, run.release)


def _tags(run: Run, now: Release) -> None:
    known = (*(item for item in releases.load(run.target, run.layout) if item.id != now.id), now)
    try:
        traffic.publish_tags(run.target, run.settings, known, now)
    except Failure as error:
        run.warn(f"the image names could not be moved: {error.why or error.what}")


def drain(run: Run) -> Done:
    """Let the release before finish its requests, and keep it stopped."""
    if run.previous is None or run.previous.id == run.release.id:
        return Done("there is none before it", "skipped")
    with undisturbed():  # it has an end, and requests in flight have done nothing wrong
        return _let_finish(run, run.previous)


def _let_finish(run: Run, before: Release) -> Done:
    try:
        left = traffic.drain(run.target, run.settings, before)
        if left:
            limit = run.settings.proxy.drain_timeout
            run.log.say(f"  {left} connections were still open after {limit:g} s")
    except Failure as error:
        run.log.say(f"  its connections could not be counted: {error.why or error.what}")
    try:
        health.await_engine(run.target)
        traffic.stop(run.target, run.settings, before)
    except Failure as error:
        run.warn(f"{before.id} could not be stopped: {error.why or error.what}")
        return Done("it still runs", "warned")
    return Done(f"{before.id} is kept, stopped")


def choose(run: Run) -> Done:
    """Choose the release to roll back to, and see that it can still be started."""
    run.release = releases.find(run.releases, run.ref) if run.ref else _before(run)
    if run.previous and run.release.id == run.previous.id:
        raise DeployFailed(f"Release {run.release.id} is live already", next_step="inv history")
    with ThreadPoolExecutor(2) as pool:  # somebody waits for it
        asking, opening = pool.submit(heads, run), pool.submit(_reopen, run)
        there = _there(run)
        found, trouble = asking.result(), opening.result()
    if trouble:
        run.warn(trouble)
    run.say_all(rollback_plan(run.releases, run.previous, run.release, found, there))
    run.settings = own(run.settings, run.release)
    return Done(f"{run.previous.id if run.previous else 'nothing'} → {run.release.id}")


def _reopen(run: Run) -> str:
    return traffic.reopen(run.target, run.settings, run.previous) if run.previous else ""


def _there(run: Run) -> str:
    try:
        return traffic.must_be_there(run.target, run.settings, run.release)
    except DeployFailed as error:
        these = {item.id for item in (run.release, run.previous) if item}
        others = [item.id for item in run.releases if item.live_at and item.id not in these]
        if others:
            error.next_step = f"inv rollback --to {others[-1]}; inv history shows all"
        raise


def rollback_plan(
    known: Sequence[Release],
    now: Release | None,
    target: Release,
    found: Sequence[str],
    there: str,
) -> tuple[str, ...]:
    """Say what a rollback will do.

    Args:
        known: All releases of the host.
        now: The live one.
        target: The one to come.
        found: The migrations that the database is at.
        there: What there is of the one to come.
    """
    by_time = sorted(known, key=lambda item: item.live_at)
    later = [item for item in by_time if item.live_at > target.live_at]
    steps = dict.fromkeys(_names(item.heads) for item in (target, *later) if item.heads)
    same = ", the same commit" if now and now.sha == target.sha else ""
    if list(target.heads) == list(found):
        data = f"at {_names(found)}, as {target.id} left it"
    else:
        data = f"stays at {_names(found)}; {target.id} was made for {_names(target.heads)}"
    return (
        f"from      {now.id if now else 'nothing'}",
        f"to        {target.id} ({target.ref}), live and healthy at {target.live_at}{same}",
        f"starts    {there}",
        f"database  {data}; no migration runs",
        f"between   {' → '.join(steps) if len(steps) > 1 else 'no migration'}",
        f"data      is kept as it is{_rehearsed(known, now, target)}",
    )


def _rehearsed(known: Sequence[Release], now: Release | None, target: Release) -> str:
    """Say what the rehearsals of the migrations since a release say about going back to it.

    Those count that did not make it, too: their migrations may have. A good word is one about
    the release just before, and holds only as long as nothing was migrated after.
    """
    since = [item for item in known if now and target.created < item.created <= now.created]
    for item in since:
        if item.reversible == "unsafe":
            return f"; the rehearsal of {item.id} said it is not safe"
    migrated = [item for item in since if item.reversible]
    same = {tuple(item.heads) for item in since if item.heads}
    if len(migrated) == 1 and migrated[0] == since[0] and len(same) == 1:
        return f"; the rehearsal of {migrated[0].id} said it is safe"
    return ""


def _before(run: Run) -> Release:
    target = releases.rollback_target(run.releases, run.previous)
    if target is None:
        raise DeployFailed(
            "There is nothing to roll back to",
            where=run.target.name,
            why="no earlier release was live and healthy",
            next_step="inv history",
        )
    return target


def wake(run: Run) -> Done:
    """Start the kept containers of the release, or new ones from its image."""
    return Done(traffic.wake(run.target, run.settings, run.release))


def sleep_again(run: Run) -> None:
    """Stop a release that was woken in vain."""
    health.await_engine(run.target)
    traffic.stop(run.target, run.settings, run.release)


def leave(run: Run) -> Done:
    """Write down which release is live, and that the others since it were left."""
    # First those that are left: killed in between, they must not be what one rolls back to.
    left = releases.passed_over(run.releases, run.release, run.previous)
    for item in left:
        releases.save(run.target, run.layout, item)
    others = (item for item in run.releases if item.id not in {one.id for one in left})
    run.releases = (*others, *left)
    _make_live(run)
    return Done(f"{run.settings.deploy.project}:latest is {run.release.tag}")
