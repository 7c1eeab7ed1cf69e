"""The releases a host knows, and which of them may take over."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from deploy import host as hosts
from deploy.command import script
from deploy.host import Host
from deploy.layout import Layout
from deploy.outcome import DeployFailed

State = Literal["new", "good", "failed", "left"]

READ_ALL = """
if [ -d "$1" ] && [ ! -r "$1" ]; then echo "$1: no permission to read it" >&2; exit 1; fi
for file in "$1"/*/release.json; do
  if [ -e "$file" ]; then cat -- "$file"; fi
done
"""


@dataclass(frozen=True)
class Release:
    """One version of the application on a host.

    Args:
        id: Its name: the UTC second it was made in and the short commit.
        sha: The commit.
        ref: What the user asked for.
        tag: The image's name.
        image: The image's id on the host.
        created: ISO time, UTC.
        state: `new` until it was live and healthy (`good`) or was not (`failed`);
            `left` when it was good and a person rolled back from it.
        live_at: ISO time, UTC, at which it last took the traffic.
        images: The image id of each of its services.
        heads: The migrations that the database was at when it was started.
        served: The settings that it was made with, as far as they say how it is served.
        containers: How many it has.
        backup: The name of the backup that was taken before its migrations, empty for none.
        reversible: Whether the release before works on a database that was migrated for this
            one: `safe` or `unsafe` by its rehearsal, empty when there was none.
    """

    id: str
    sha: str
    ref: str
    tag: str
    created: str
    image: str = ""
    state: State = "new"
    live_at: str = ""
    images: Mapping[str, str] = field(default_factory=dict)
    heads: Sequence[str] = ()
    served: Mapping[str, Any] = field(default_factory=dict)
    containers: int = 0
    backup: str = ""
    reversible: str = ""

    @property
    def short(self) -> str:
        """Return the short commit."""
        return self.sha[:7]


def save(host: Host, layout: Layout, release: Release) -> None:
    """Write down what is known of a release, atomically."""
    text = json.dumps(asdict(release)) + "\n"
    hosts.replace(host, f"{layout.release(release.id)}/release.json", text.encode())


def load(host: Host, layout: Layout) -> tuple[Release, ...]:
    """Return every release of the host, oldest first; a garbled one counts for nothing."""
    lines = host.ask(script(READ_ALL, layout.releases)).splitlines()
    found = (parse(line) for line in lines)
    return tuple(sorted((item for item in found if item), key=lambda item: item.id))


def parse(text: str) -> Release | None:
    """Given one line of JSON, return the release, or None when it makes no sense."""
    try:
        data = json.loads(text)
        if data["state"] not in ("new", "good", "failed", "left"):
            return None
        known = {key: data[key] for key in Release.__dataclass_fields__ if key in data}
        release = Release(**{**known, "heads": tuple(data.get("heads", ()))})
        names = (release.id, release.sha, release.ref, release.tag, release.image)
        texts = (*names, release.live_at, release.backup)
        return release if all(isinstance(item, str) for item in texts) else None
    except (ValueError, KeyError, TypeError):
        return None


def rollback_target(releases: Iterable[Release], live: Release | None) -> Release | None:
    """Return the release that was live and healthy before the current one.

    A release that failed, or that somebody rolled back from, is none; so rolling back
    twice goes one further back instead of flipping back to the bad one.
    """
    good = [item for item in releases if item.state == "good" and item.live_at]
    older = [item for item in good if live is None or _before(item, live)]
    return max(older, key=lambda item: item.live_at, default=None)


def passed_over(
    releases: Iterable[Release], target: Release, live: Release | None
) -> tuple[Release, ...]:
    """Return what a rollback to a release leaves: the live one, and all that went live since it.

    The next rollback then goes one further back, also when this one went back several at once.
    Who goes forward again, to one that had been left, leaves none for being bad.
    """
    if target.state == "left":
        return ()
    return tuple(
        settled(item, "left")
        for item in releases
        if item.state == "good"
        and item.id != target.id
        and ((live and item.id == live.id) or item.live_at > target.live_at)
    )


def _before(item: Release, live: Release) -> bool:
    if item.id == live.id:
        return False
    return not live.live_at or item.live_at < live.live_at


def find(releases: Iterable[Release], name: str) -> Release:
    """Return the one release that a person means by its id, commit, or the start of either.

    Raises:
        DeployFailed: There is none, several, or it never was live and healthy.
    """
    known = tuple(releases)
    hits = [
        item for item in known if name and (item.id.startswith(name) or item.sha.startswith(name))
    ]
    usable = [item for item in hits if item.live_at and item.state in ("good", "left")]
    if usable and len({item.sha for item in usable}) == 1:
        return max(usable, key=lambda item: item.live_at)
    names = ", ".join(item.id for item in known if item.live_at and item.state in ("good", "left"))
    if not hits:
        what = f"There is no release {name}"
    elif not usable:
        what = f"Release {hits[-1].id} never was live and healthy"
    else:
        what = f"{name} may mean several releases"
    raise DeployFailed(what, next_step=f"name one of: {names or 'none'}")


def settled(release: Release, state: State, live_at: str | None = None) -> Release:
    """Return the release in another state, and where given with the time it went live."""
    return replace(release, state=state, live_at=release.live_at if live_at is None else live_at)


def next_moment(releases: Iterable[Release], now: datetime) -> str:
    """Return the time to write down for what goes live now: later than all that went before.

    A clock that was set back must not change which release came before which.
    """
    seen = [datetime.fromisoformat(item.live_at) for item in releases if item.live_at]
    return max([now, *(item + timedelta(milliseconds=1) for item in seen)]).isoformat()


def superfluous(
    releases: Iterable[Release], live: Release | None, keep: int
) -> tuple[Release, ...]:
    """Return the releases that may be forgotten.

    The newest `keep` that were live and healthy stay, so do the live one and the one to roll
    back to. Failed ones go at once, and never push a good one out.

    Args:
        releases: All that a host knows.
        live: The one that has the traffic.
        keep: How many good ones stay, at least 2.
    """
    known = tuple(releases)
    good = sorted((item for item in known if item.live_at), key=lambda item: item.live_at)
    kept = {item.id for item in good[-max(2, keep) :]}
    kept |= {item.id for item in (live, rollback_target(known, live)) if item}
    return tuple(item for item in known if item.id not in kept)
