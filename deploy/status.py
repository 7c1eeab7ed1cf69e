"""What is true on a host now, asked from the host."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from deploy import health, lock, releases, traffic
from deploy.detached import launch
from deploy.detached.work import HAND_OVER
from deploy.lock import Owner
from deploy.postgres import backup, restore
from deploy.releases import Release
from deploy.served import own
from deploy.session import Session
from deploy.settings import Settings


def look(session: Session) -> dict[str, Any]:
    """Return what `status --json` prints.

    Raises:
        Unreachable: The host cannot be asked.
        Invalid: Nothing answers there, not even a Docker engine.
    """
    host, settings, layout = session.target, session.settings, session.layout
    known = releases.load(host, layout)
    live = traffic.live(host, settings, known)
    door = traffic.inside(settings)
    served = own(settings, live)
    answer = health.ask(host, door, served.app.health_path, settings.health.timeout)
    trouble = _trouble(session, served, live) if live and answer.good else ""
    if live is None or not answer.good:
        health.need_engine(host)
    owner = lock.look(host, layout.lock) or _at_work(session)
    saved = [item for item in backup.listing(host, layout.backups) if item.state != "unverified"]
    url = settings.deploy.url or traffic.front_door(settings, host.address)
    newest = saved[0] if saved else None
    return {
        "host": host.name,
        "url": url,
        "healthy": live is not None and answer.good and not trouble,
        "answer": session.log.redactor.mask(trouble or answer.as_text()),
        "release": _release(live),
        "rollback": _release(releases.rollback_target(known, live) if live else None),
        "lock": vars(owner) if owner else None,
        "backup": (
            {"name": newest.name, "at": newest.at, "state": newest.state} if newest else None
        ),
    }


def _trouble(session: Session, settings: Settings, live: Release) -> str:
    """Say what is wrong with the containers of a release that answers, empty for nothing."""
    found = traffic.containers(session.target, settings, live)
    trouble = health.trouble(found, settings)
    if trouble:
        return trouble.text
    if len(found) < live.containers:
        return f"{len(found)} of {live.containers} containers are there"
    return ""


def _at_work(session: Session) -> Owner | None:
    """Return the host itself, when it goes on with a run whose caller is gone."""
    run = launch.working(session.target, session.layout)
    who = f"{session.target.name} itself"
    return Owner(run, "run", who, session.target.name, "", HAND_OVER) if run else None


def as_text(found: dict[str, Any]) -> str:
    """Return the same in words."""
    release, before, held = found["release"], found["rollback"], found["lock"]
    saved, now = found["backup"], datetime.now(UTC)
    lines = [
        f"{found['host']}: {'healthy' if found['healthy'] else 'NOT HEALTHY'} at {found['url']}",
        f"  live      {_line(release)}",
        f"  rollback  {_line(before)}",
        f"  backup    {_backup(saved, now) if saved else 'none'}",
        f"  lock      {_held(held) if held else 'free'}",
    ]
    if not found["healthy"]:
        lines.append(f"  answer    {found['answer']}")
    return "\n".join(lines)


def _release(release: Release | None) -> dict[str, str] | None:
    if release is None:
        return None
    return {
        "id": release.id,
        "sha": release.sha,
        "ref": release.ref,
        "image": release.image,
        "since": release.live_at,
    }


def _backup(saved: dict[str, str], now: datetime) -> str:
    age = f"{restore.age(saved['at'], now)} old" if saved["at"] else "of unknown age"
    state = "" if saved["state"] == "good" else f", {saved['state'].upper()}"
    return f"{saved['name']}, {age}{state}"


def _held(lock: dict[str, str]) -> str:
    return f"held: {lock['what']} {lock['run']} by {lock['who']}, at step {lock['step'] or 'lock'}"


def _line(release: dict[str, str] | None) -> str:
    if release is None:
        return "none"
    return f"{release['id']} ({release['ref']}) since {release['since']}"
