"""What is live, and what a run that ended early has left behind: found, said, and settled."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from deploy import host as hosts
from deploy import releases, traffic
from deploy.command import script
from deploy.detached import plan as plans
from deploy.detached import steps as detached
from deploy.journal import bookkeeping
from deploy.outcome import Busy, Failure
from deploy.pipeline import Done, Step, execute, undo
from deploy.postgres import access, restore
from deploy.report import record as records
from deploy.run import Run

BUSY = 75  # EX_TEMPFAIL

# The lock was free, so whoever started this is gone; the work has a deadline of its own.
AWAIT = """
[ -e "$1" ] || exit 0
flock --shared --timeout "$2" "$1" true || { cat -- "$1"; exit "$3"; }
"""
# Runs with a journal and no record, and what each was told to do by itself.
UNFINISHED = """
cd -- "$1"
for file in *.jsonl; do
  run=${file%.jsonl}
  if [ ! -e "$file" ] || [ -e "$2/$run.json" ] || [ "$run" = "$3" ]; then continue; fi
  printf '{"run": "%s", "plan": ' "$run"
  if [ -s "$run.plan" ]; then tr -d '\\n' <"$run.plan"; else printf null; fi
  printf ', "lines": ['; paste -s -d , -- "$file" | tr -d '\\n'; printf ']}\\n'
done
"""
# One-off containers of a run that is gone: migrations, never a service.
ONE_OFFS = """
docker ps --all --quiet --filter "label=com.docker.compose.project=$1" \
  --filter label=com.docker.compose.oneoff=True | xargs -r docker rm --force
"""
PARTS = 'find "$1" -maxdepth 1 -name ".*.part" -type f -print -delete'


def settle_earlier(run: Run) -> Done:
    """Find out what is live, after an earlier run's leavings were settled.

    Raises:
        Busy: What a host does by itself does not end.
    """
    _await_detached(run)
    left = _unfinished(run)
    _look(run)
    lost = run.held is not None and run.held.left is not None
    if left or lost or _loose(run):
        _say_what_was_left(run, left)
        _settle(run, left)
        _look(run)
    return Done(f"live is {run.previous.id}" if run.previous else "nothing is live yet")


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


def _unfinished(run: Run) -> list[dict[str, Any]]:
    layout = run.layout
    text = bookkeeping(run.target).ask(script(UNFINISHED, layout.journal, layout.records, run.id))
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
        run.warn(f"{owner.as_text()} lost its caller; the host ended it by itself")


def _settle(run: Run, left: Sequence[dict[str, Any]]) -> None:
    """Bring the host to where one release is live, healthy and named, and nothing else runs."""
    project = run.settings.deploy.project
    run.target.run(script(ONE_OFFS, project))
    run.target.run(script(PARTS, run.layout.backups))
    _settle_database(run)
    for item in left:
        if item["plan"]:
            _go_on_or_back(run, item["plan"])
        _keep_record(run, item)
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


def _settle_database(run: Run) -> None:
    database = access.database(run.target, run.settings)
    found = restore.clean_up(database) if database else ""
    if found:
        run.warn(f"a restore ended early; settled: {found}")


def _go_on_or_back(run: Run, plan: dict[str, Any]) -> None:
    """Bring a switch that was cut short to its end, or undo what came before it."""
    earlier = plans.run_of(plan, run.target, run.log)
    if earlier.kind not in ("deploy", "rollback"):
        return
    known = releases.load(run.target, run.layout)
    earlier.releases = known
    now = traffic.live(run.target, run.settings, known)
    earlier.switched = now is not None and now.id == earlier.release.id
    steps = detached.detached(earlier.kind)
    if not earlier.switched:
        undo(earlier, [item for item in steps if item.name == "start"])
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
    if step.name in ("start", "health", "smoke", "switch"):
        return replace(step, apply=lambda _run: Done("it was done before", "skipped"))
    return step


def _keep_record(run: Run, item: dict[str, Any]) -> None:
    record = records.killed(run, item)
    text = json.dumps(record, ensure_ascii=False) + "\n"
    path = f"{run.layout.records}/{item['run']}.json"
    hosts.replace(bookkeeping(run.target), path, text.encode())
