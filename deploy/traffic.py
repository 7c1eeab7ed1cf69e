"""Who gets the traffic: asked from the proxy, changed at once, names along with it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from deploy import releases
from deploy.command import command, script
from deploy.docker import compose, engine, proxy
from deploy.docker.engine import Container
from deploy.host import Host
from deploy.layout import Layout
from deploy.outcome import DeployFailed
from deploy.releases import Release

if TYPE_CHECKING:
    from deploy.settings import Settings

# One file, whose name is the upstream: a rename moves all traffic at once, and lasts.
POINT = """
cd -- "$1"
if [ -n "$2" ] && [ ! -e "./$2" ]; then
  first=$(ls -A | head -n 1)
  if [ -n "$first" ]; then mv -T -- "./$first" "./$2"; else : >"./$2"; fi
fi
for name in $(ls -A); do [ "$name" = "$2" ] || rm -f -- "./$name"; done
sync -- .
"""
POLL = 0.2  # seconds between two looks at the connections that drain


def upstream_of(settings: Settings, release: str) -> str:
    """Return the name that the proxy knows a release by."""
    return compose.service_name(settings.app.services[0], release)


def upstream(host: Host, settings: Settings) -> str:
    """Return the name that the proxy sends traffic to, empty for nobody.

    One that does not run is taken at its configuration, which it starts with.
    """
    result = host.run(proxy.ask_upstream(settings))
    if result.ok:
        return proxy.upstream(result.out)
    names = host.run(command("ls", "-A", "--", Layout(settings.deploy.root).live)).out.split()
    return names[0] if names else ""


def live(host: Host, settings: Settings, known: tuple[Release, ...]) -> Release | None:
    """Return the release that the proxy sends traffic to, or would when it is started."""
    name = upstream(host, settings)
    return next((item for item in known if name and upstream_of(settings, item.id) == name), None)


def point(host: Host, settings: Settings, release: Release | None) -> None:
    """Send all traffic to a release, or to none, and see that the proxy does.

    Raises:
        Failure: The proxy does not.
    """
    wanted = upstream_of(settings, release.id) if release else ""
    host.ask(script(POINT, Layout(settings.deploy.root).live, wanted))
    found = upstream(host, settings)
    if found != wanted:
        raise DeployFailed(
            "The proxy does not send the traffic where it was told to",
            where=host.name,
            why=f"wanted {wanted or 'nowhere'}, it says {found or 'nowhere'}",
            next_step=f"docker logs {settings.proxy.container}",
        )


def front_door(settings: Settings, address: str) -> str:
    """Return the service's address as reached at an address of its host."""
    if settings.proxy.domain:
        return f"https://{settings.proxy.domain}"
    return f"http://{address}:{settings.proxy.port}"


def claim_names(host: Host, settings: Settings, release: Release) -> None:
    """Give the containers of a release the names that the live ones always have.

    Raises:
        Failure: A container that is not ours holds such a name.
    """
    everything = engine.parse_containers(host.ask(engine.inspect_project(settings.deploy.project)))
    mine = [item for item in everything if item.release == release.id]
    holders = {item.name: item for item in everything}
    for item in mine:
        name = item.labels.get(engine.LIVE_NAME_LABEL, item.name)
        holder = holders.get(name)
        if holder and holder.id != item.id:
            host.ask(engine.rename(holder.id, f"{name}_{holder.release}"))
        if item.name != name:
            host.ask(engine.rename(item.id, name))


def containers(host: Host, settings: Settings, release: Release) -> tuple[Container, ...]:
    """Return the containers of a release, running or not."""
    found = engine.parse_containers(host.ask(engine.inspect_project(settings.deploy.project)))
    return tuple(item for item in found if item.release == release.id)


def drain(host: Host, settings: Settings, release: Release) -> int:
    """Wait until the proxy has no connection to a release left, or proxy.drain_timeout is over.

    A request in flight, a long answer and a websocket each hold one.

    Returns:
        How many are left.
    """
    first = settings.app.services[0]
    found = [item for item in containers(host, settings, release) if item.service == first]
    addresses = [item.addresses.get(settings.proxy.network, "") for item in found if item.running]
    ends = time.monotonic() + settings.proxy.drain_timeout
    while True:
        text = host.ask(proxy.connections(settings))
        left = proxy.connected(text, filter(None, addresses), settings.app.port)
        if not left or time.monotonic() > ends:
            return left
        time.sleep(POLL)  # the interval of a poll that has a deadline


def stop(host: Host, settings: Settings, release: Release) -> None:
    """Stop a release and keep it; each container gets the grace its compose file names."""
    found = [item for item in containers(host, settings, release) if item.running]
    if found:
        host.ask(engine.stop([item.id for item in found]))


def remove(host: Host, settings: Settings, release: Release) -> None:
    """Remove the containers of a release."""
    for item in containers(host, settings, release):
        host.ask(engine.remove(item.id))


def must_be_there(host: Host, settings: Settings, release: Release) -> None:
    """See that a release can be started again, before anything is touched.

    Raises:
        DeployFailed: Neither its containers nor its image are there any more.
    """
    if _kept(host, settings, release) or host.run(engine.image_id(release.image)).ok:
        return
    raise DeployFailed(
        f"Release {release.id} has neither containers nor an image any more",
        where=host.name,
        next_step="choose another with --to, see inv history",
    )


def wake(host: Host, settings: Settings, release: Release) -> str:
    """Start the kept containers of a release, or new ones from its image.

    Returns:
        What was done, in a few words.

    Raises:
        Failure: They do not start.
    """
    if kept := _kept(host, settings, release):
        asleep = [engine.start(item) for item in kept if not item.running]
        with ThreadPoolExecutor(max_workers=len(kept)) as pool:
            list(pool.map(host.ask, asleep))
        return "its kept containers"
    place = Layout(settings.deploy.root).place(release.id, release.tag)
    host.ask(engine.tag_image(release.image, release.tag))
    host.ask(compose.up_release(settings, place))
    return "new containers from its image"


def _kept(host: Host, settings: Settings, release: Release) -> tuple[Container, ...]:
    found = containers(host, settings, release)
    whole = {item.service for item in found} >= set(settings.app.services)
    return found if whole else ()


def give_tag_back(host: Host, failed: Release, live: Release | None) -> None:
    """Take the image's name from a failed release that was another build of the live commit."""
    if live and live.image and live.tag == failed.tag and live.image != failed.image:
        host.ask(engine.tag_image(live.image, live.tag))


def publish_tags(host: Host, settings: Settings, known: tuple[Release, ...], now: Release) -> None:
    """Make `latest` the live image, and `rollback` the one that was live before it."""
    name = settings.deploy.project
    host.ask(engine.tag_image(now.image, f"{name}:latest"))
    target = releases.rollback_target(known, now)
    if target and target.image:
        host.ask(engine.tag_image(target.image, f"{name}:rollback"))
    elif host.run(engine.image_id(f"{name}:rollback")).ok:
        host.ask(engine.untag_image(f"{name}:rollback"))
