"""What is live, and what a run that ended early has left behind: found, said, and settled."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from deploy import health, lock, releases, traffic
from deploy import host as hosts
from deploy.command import command, script
from deploy.detached import plan as plans
from deploy.detached import steps as detached
from deploy.docker import engine
from deploy.host.process import CommandFailed
from deploy.journal import bookkeeping
from deploy.outcome import Busy, DataFailed, DeployFailed, Failure, RollbackFailed
from deploy.pipeline import Done, Step, execute, undo
from deploy.postgres import access, restore
from deploy.report import record as records
from deploy.run import Run
from deploy.steps import apart, make, prepare

BUSY = 75  # EX_TEMPFAIL

# The lock was free, so whoever started this is gone; the work has a deadline of its own.
AWAIT = """
[ -e "$1" ] || exit 0
flock --shared --timeout "$2" "$1" true || { cat -- "$1"; exit "$3"; }
"""
# Runs without a record, and those that the host was to end by itself and did not.
UNFINISHED = """
cd -- "$1"
for file in *.jsonl; do
  run=${file%.jsonl}
  if [ ! -e "$file" ] || [ "$run" = "$3" ]; then continue; fi
  if [ -e "$2/$run.json" ] && { [ ! -e "$run.plan" ] || [ -e "$run.result" ]; }; then continue; fi
  printf '{"run": "%s", "plan": ' "$run"
  if [ -s "$run.plan" ]; then tr -d '\\n' <"$run.plan"; else printf null; fi
  printf ', "lines": ['; paste -s -d , -- "$file" | tr -d '\\n'; printf ']}\\n'
done
"""
SCRATCH = 'find "$1" -maxdepth 1 -name "$2*" -user "$(id -un)" -exec rm -rf -- {} +'
RECORDED = '[ -e "$1" ]'
# An export that was cut short has a folder, and nothing yet that tells of a release.
EXPORTS = """
cd -- "$1"
for folder in */; do
  if [ -d "$folder" ] && [ ! -e "$folder/release.json" ]; then rm -rf -- "./$folder"; fi
done
"""
PARTS = """
find "$1" -maxdepth 1 -name '.*.part' -type f -print -delete
find "$2" -maxdepth 1 -name '.part.*' -type d -exec rm -rf -- {} +
"""


def settle_earlier(run: Run) -> Done:
    """Find out what is live, after an earlier run's leavings were settled.

    Raises:
        Busy: What a host does by itself does not end.
    """
    _await_detached(run)
    with ThreadPoolExecutor(3) as pool:  # a rollback waits for it
        looking, opening = pool.submit(_look, run), pool.submit(_settle_database, run)
        left = _unfinished(run, but=run.id)
        looking.result()
        opening.result()
    lost = run.held is not None and run.held.left is not None
    if left or lost or _loose(run):
        _say_what_was_left(run, left)
        _settle(run, left)
        _look(run)
    return Done(f"live is {run.previous.id}" if run.previous else "nothing is live yet")


def settle_own(run: Run, failure: Failure) -> Failure | None:
    """Settle what the host was killed at in this very run; return how the run ended then.

    Raises:
        Failure: It cannot be settled now; the next run will.
    """
    release = run.release if hasattr(run, "release") else None
    if run.held and run.held.lost():  # with the link, or the host restarted: others may be at work
        run.held.give_back()
        run.held = lock.take(run.target, run.layout, run.owner, lock.SILENCE)
    _await_detached(run)
    health.await_engine(run.target)
    own = [item for item in _unfinished(run, but="") if item["run"] == run.id]
    _settle_database(run)
    _settle(run, own)
    before = run.previous
    _look(run)
    if release and run.previous and run.previous.id == release.id:
        run.release, run.previous = run.previous, before
        run.warn("the host's part of the run was killed, and then brought to its end")
        run.steps[-1].state, run.steps[-1].note = "warned", "it was killed, and settled at once"
        return None
    now = f"{run.previous.id} serves" if run.previous else "nothing is live"
    kind = RollbackFailed if run.kind == "rollback" else DeployFailed
    return kind(
        f"{failure.what}, and what it had begun was undone; {now}",
        where=failure.where,
        why=failure.why,
        next_step="inv status; inv logs; then do it again",
    )


def _look(run: Run) -> None:
    run.releases = releases.load(run.target, run.layout)
    run.previous = traffic.live(run.target, run.settings, run.releases)


def _loose(run: Run) -> bool:
    return any(item.state == "new" for item in run.releases)


def _await_detached(run: Run) -> None:
    path = run.layout.working
    if run.target.run(script(AWAIT, path, "0", str(BUSY))).ok:
        return
    seconds = plans.deadline_of(run.settings, "deploy")
    run.log.say("  an earlier run goes on by itself on the host: waiting for its end")
    limit = script(AWAIT, path, f"{seconds:g}", str(BUSY), deadline=seconds + 10)
    result = run.target.run(limit)
    if not result.ok:
        raise Busy(
            "An earlier run does not end on the host",
            where=f"{run.target.name}:{path}",
            why=result.tail(3),
            next_step="inv unlock shows it; inv unlock --yes ends it",
        )


def _unfinished(run: Run, *, but: str) -> list[dict[str, Any]]:
    layout = run.layout
    text = bookkeeping(run.target).ask(script(UNFINISHED, layout.journal, layout.records, but))
    found = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            run.log.write("a journal of an earlier run is garbled")
    return [item for item in found if item["lines"]]


def _say_what_was_left(run: Run, left: Sequence[dict[str, Any]]) -> None:
    for item in left:
        last = item["lines"][-1]
        run.warn(f"run {item['run']} ended early, at step {last['step']} ({last['state']})")
    owner = run.held.left if run.held else None
    if owner and owner.run not in [item["run"] for item in left]:
        run.warn(f"{owner.as_text()} {_how_it_ended(run, owner.run)}")


def _how_it_ended(run: Run, earlier: str) -> str:
    text = hosts.read(bookkeeping(run.target), f"{run.layout.records}/{earlier}.json")
    try:
        record = json.loads(text)
        if record["notification"] is not None:  # the caller itself has written it
            return f"lost its link to the host: {record['outcome']}"
    except (ValueError, KeyError, TypeError):
        return "lost its caller: nothing was begun"
    return "lost its caller: the host brought it to its end"


def _settle(run: Run, left: Sequence[dict[str, Any]]) -> None:
    """Bring the host to where one release is live, healthy and named, and nothing else runs."""
    project = run.settings.deploy.project
    run.target.run(engine.remove_one_offs(project))
    run.target.run(script(PARTS, run.layout.backups, run.layout.library))
    run.target.run(script(EXPORTS, run.layout.releases))
    for item in left:
        if item["plan"]:
            _go_on_or_back(run, item["plan"])
        _remove_trials(run, item)
        _close(run, item)
    _look(run)
    for release in run.releases:
        if run.previous and release.id == run.previous.id:
            continue
        if release.state == "new":
            run.log.say(f"  {release.id} was left behind by a run that ended early: removed")
            traffic.remove(run.target, run.settings, release)
            releases.save(run.target, run.layout, releases.settled(release, "failed"))
        elif any(found.running for found in traffic.containers(run.target, run.settings, release)):
            run.log.say(f"  {release.id} still ran beside the live release: stopped")
            traffic.stop(run.target, run.settings, release)
    if run.previous:
        traffic.wake(run.target, run.settings, run.previous)
        traffic.claim_names(run.target, run.settings, run.previous)
        traffic.publish_tags(run.target, run.settings, run.releases, run.previous)


def _remove_trials(run: Run, item: dict[str, Any]) -> None:
    """Remove what an earlier run has left of its tests, on either side, and of its rehearsal."""
    earlier = (item["run"], str(item["lines"][0].get("mark", "")))
    for machine in {host.name: host for host in (run.target, run.builder)}.values():
        machine.run(engine.remove_project(make.gate(run.settings, *earlier)))
    run.target.run(engine.remove_project(apart.stage(run.settings, *earlier)))
    run.builder.run(script(SCRATCH, tempfile.gettempdir(), prepare.scratch(*earlier)))


def _settle_database(run: Run) -> None:
    try:
        database = access.database(run.target, run.settings)
    except DataFailed as error:  # of a deployment that was killed before it said where it is
        run.warn(f"whether a restore ended early is unknown: {error.as_text()}")
        return
    if database is None:
        return
    try:
        found, how = restore.reopen(database), "the next run settles"
        if found and run.kind != "rollback":  # somebody waits for that, and what is left takes time
            restore.clean_up(database, datetime.now(UTC), run.log.say)
            how = "settled"
    except (CommandFailed, DataFailed) as error:  # the server may be away, which others will tell
        run.warn(f"what a restore has left could not be settled: {error.as_text()}")
        return
    if found:
        run.warn(f"a restore ended early; {how}: {found}")


def _go_on_or_back(run: Run, plan: dict[str, Any]) -> None:
    """Bring a switch that was cut short to its end, or undo what came before it."""
    earlier = plans.run_of(plan, run.target, run.log)
    if earlier.kind not in ("deploy", "rollback", "rotate"):
        return
    known = releases.load(run.target, run.layout)
    earlier.releases = known
    now = traffic.live(run.target, run.settings, known)
    earlier.switched = now is not None and now.id == earlier.release.id
    steps = detached.detached(earlier.kind)
    if not earlier.switched:
        undo(earlier, [item for item in steps if item.name in ("password", "start")])
        return
    current = next(item for item in known if item.id == earlier.release.id)
    earlier.release = current
    try:
        execute(earlier, [_done_before(item) for item in steps])
    except Failure as failure:
        run.warn(f"{earlier.release.id} took traffic and is not well: {failure.what}")
    else:
        run.log.say(f"  {earlier.release.id} had taken the traffic: its run was brought to its end")


def _done_before(step: Step) -> Step:
    if step.name in ("password", "start", "health", "smoke", "switch"):
        return replace(step, apply=lambda _run: Done("it was done before", "skipped"))
    return step


def _close(run: Run, item: dict[str, Any]) -> None:
    """Write down that an earlier run is settled: its record when it has none, and its result."""
    quiet, layout = bookkeeping(run.target), run.layout
    record = f"{layout.records}/{item['run']}.json"
    if not run.target.run(script(RECORDED, record)).ok:
        text = json.dumps(records.killed(run, item), ensure_ascii=False) + "\n"
        hosts.replace(quiet, record, text.encode())
    if item["plan"]:
        text = json.dumps({"settled_by": run.id})
        hosts.replace(quiet, f"{layout.journal}/{item['run']}.result", text.encode())
        quiet.run(command("rm", "-f", "--", f"{layout.journal}/{item['run']}.part"))
