"""Room for what is to come: what no kept release needs goes, before the build."""

from __future__ import annotations

from dataclasses import dataclass

from deploy import releases, traffic
from deploy.command import Command, command, script
from deploy.docker import engine
from deploy.pipeline import Done
from deploy.releases import Release
from deploy.run import Run

# Dangling images of ours alone, by the label that each build gets; volumes are never touched.
LEFTOVERS = """
docker image prune --force --filter "label=$1" >/dev/null
docker builder prune --force --keep-storage "$2" >/dev/null 2>&1 || true
"""
IMAGES = 'docker image ls --no-trunc --format "{{.ID}} {{.Repository}}:{{.Tag}}" -- "$1"'
# By release, not by age: the logs of runs that came before the oldest kept release.
LOGS = """
ls -1 -- "$1" | sed -n 's/[.]jsonl$//p' | sort | while IFS= read -r run; do
  if [[ "$run" < "$3" ]]; then
    rm -f -- "$1/$run".* "$2/deployment_$run.log"
  fi
done
"""
LIBRARY = 'cd -- "$1"; ls -1t | tail -n +4 | while IFS= read -r name; do rm -rf -- "./$name"; done'


@dataclass(frozen=True)
class Name:
    """A name of an image."""

    image: str
    tag: str


def prune(run: Run) -> Done:
    """Remove the releases that may be forgotten, with their images, containers and logs."""
    settings, host = run.settings, run.target
    doomed = releases.superfluous(run.releases, run.previous, settings.deploy.keep_releases)
    doomed = tuple(item for item in doomed if item.id != run.release.id)
    kept = tuple(item for item in run.releases if item not in doomed)
    for item in doomed:
        traffic.remove(host, settings, item)
    project = settings.deploy.project
    names = parse_names(host.ask(script(IMAGES, project)))
    for item in nameless(names, kept):
        host.run(engine.tag_image(item.image, f"{project}:{item.id}"))
    for name in unused(names, doomed, kept):
        removed = host.run(engine.untag_image(name.tag))
        if not removed.ok:
            run.log.write(f"{name.tag} stays: {removed.tail(1)}")
    for item in doomed:
        host.ask(_forget(run, item))
    label = f"{engine.PROJECT_LABEL}={project}"
    host.ask(script(LEFTOVERS, label, f"{settings.deploy.build_cache_mb}MB", deadline=300))
    _old_logs(run, kept)
    host.ask(script(LIBRARY, run.layout.library))
    run.releases = kept
    return Done(
        f"{len(doomed)} releases forgotten, {len(kept)} kept" if doomed else "nothing to do"
    )


def parse_names(text: str) -> tuple[Name, ...]:
    """Given a line for each image, its id and its name, return them."""
    words = (line.split() for line in text.splitlines())
    return tuple(Name(found[0], found[1]) for found in words if len(found) == 2)


def unused(
    names: tuple[Name, ...], doomed: tuple[Release, ...], kept: tuple[Release, ...]
) -> tuple[Name, ...]:
    """Return the names that only forgotten releases have: no image of a kept one loses any."""
    needed_images = {item.image for item in kept}
    needed_tags = {item.tag for item in kept}
    ours = {item.tag for item in doomed}
    return tuple(
        item
        for item in names
        if item.tag in ours and item.tag not in needed_tags and item.image not in needed_images
    )


def nameless(names: tuple[Name, ...], kept: tuple[Release, ...]) -> tuple[Release, ...]:
    """Return the releases to keep whose image another build took the name of.

    What has no name counts as a leftover to the engine.
    """
    named = {item.image for item in names}
    return tuple(item for item in kept if item.image and item.image not in named)


def _forget(run: Run, release: Release) -> Command:
    return command("rm", "-r", "-f", "--", run.layout.release(release.id))


def _old_logs(run: Run, kept: tuple[Release, ...]) -> None:
    good = sorted(item.id for item in kept if item.live_at)
    if len(good) < run.settings.deploy.keep_releases:
        return
    date, time = good[0].split("-")[:2]
    oldest = f"{date[:4]}-{date[4:6]}-{date[6:8]}_{time[:2]}-{time[2:4]}-{time[4:6]}"
    layout = run.layout
    run.target.ask(script(LOGS, layout.journal, layout.logs, oldest))
