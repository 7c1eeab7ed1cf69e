"""Who gets the traffic: asked from the proxy, changed at once, names along with it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from deploy import releases
from deploy.command import command, script
from deploy.docker import compose, engine, proxy
from deploy.docker.engine import Container
from deploy.health import Address
from deploy.host import Host
from deploy.layout import Layout
from deploy.outcome import DeployFailed
from deploy.releases import Release
from deploy.served import own

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
EVERYWHERE = "0.0.0.0"  # noqa: S104 - it is only compared
POLL = 0.2  # seconds between two looks at the connections that drain


def upstream_of(settings: Settings, release: Release) -> str:
    """Return what the proxy knows a release by: where it is reached, as a file's name."""
    app = own(settings, release).app
    return proxy.upstream_name(compose.service_name(app.services[0], release.id), app.port)


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
    return next((item for item in known if name and name in names_of(settings, item)), None)


def names_of(settings: Settings, release: Release) -> tuple[str, str]:
    """Return the name of a release's upstream, and the one it had before ports stood in it."""
    app = own(settings, release).app
    return upstream_of(settings, release), compose.service_name(app.services[0], release.id)


def point(host: Host, settings: Settings, release: Release | None) -> None:
    """Send all traffic to a release, or to none, and see that the proxy does.

    Raises:
        Failure: The proxy does not.
    """
    wanted = upstream_of(settings, release) if release else ""
    host.ask(script(POINT, Layout(settings.deploy.root).live, wanted))
    found = upstream(host, settings)
    if found != wanted:
        raise DeployFailed(
            "The proxy does not send the traffic where it was told to",
            where=host.name,
            why=f"wanted {wanted or 'nowhere'}, it says {found or 'nowhere'}",
            next_step=f"docker logs {settings.proxy.container}",
        )


def inside(settings: Settings) -> Address:
    """Return the service's address as reached on its host."""
    bind = settings.proxy.bind
    here = "127.0.0.1" if bind == EVERYWHERE else bind
    return Address(front_door(settings, here), here if settings.proxy.domain else "")


def front_door(settings: Settings, address: str) -> str:
    """Return the service's address as reached at an address of its host."""
    if settings.proxy.domain:
        return f"https://{settings.proxy.domain}"
    return f"http://{address}:{settings.proxy.port}"


def reopen(host: Host, settings: Settings, release: Release) -> str:
    """Start the proxy, when it does not run, the way a release that leans on it would.

    Returns:
        What was wrong, empty when it runs.
    """
    if host.run(proxy.ask_upstream(settings)).ok:
        return ""
    place = Layout(settings.deploy.root).place(release.id, release.tag)
    result = host.run(compose.up_proxy(settings, place))
    how = "and was started" if result.ok else f"and does not start: {result.tail(3)}"
    return f"the proxy did not run, {how}"


def claim_names(host: Host, settings: Settings, release: Release) -> None:
    """Give the containers of a release the names that the live ones always have.

    Raises:
        Failure: A container that is not ours holds such a name.
    """
    everything = engine.parse_containers(host.ask(engine.inspect_project(settings.deploy.project)))
    mine = [item for item in everything if item.release == release.id]
    wanted = {item.labels.get(engine.LIVE_NAME_LABEL, item.name): item for item in mine}
    for item in everything:
        # Also one whose name nobody wants now: it would pass for the live one.
        its_own = item.labels.get(engine.LIVE_NAME_LABEL) == item.name
        if item.release != release.id and (its_own or item.name in wanted):
            host.ask(engine.rename(item.id, f"{item.name}_{item.release}"))
    for name, item in wanted.items():
        if item.name != name:
            host.ask(engine.rename(item.id, name))


def containers(host: Host, settings: Settings, release: Release) -> tuple[Container, ...]:
    """Return the containers of a release, running or not."""
    found = engine.parse_containers(host.ask(engine.inspect_project(settings.deploy.project)))
    return tuple(item for item in found if item.release == release.id)


def runs(host: Host, settings: Settings, release: Release) -> bool:
    """Tell whether the service of a release that takes the traffic runs."""
    first = own(settings, release).app.services[0]
    found = containers(host, settings, release)
    return any(item.running for item in found if item.service == first)


def drain(host: Host, settings: Settings, release: Release) -> int:
    """Wait until the proxy has no connection to a release left, or proxy.drain_timeout is over.

    A request in flight, a long answer and a websocket each hold one.

    Returns:
        How many are left.
    """
    app = own(settings, release).app
    first = app.services[0]
    found = [item for item in containers(host, settings, release) if item.service == first]
    addresses = [item.addresses.get(settings.proxy.network, "") for item in found if item.running]
    ends = time.monotonic() + settings.proxy.drain_timeout
    while True:
        text = host.ask(proxy.connections(settings))
        left = proxy.connected(text, filter(None, addresses), app.port)
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


def must_be_there(host: Host, settings: Settings, release: Release) -> str:
    """See that a release can be started again, before anything is touched.

    Returns:
        What of it is there.

    Raises:
        DeployFailed: Neither its containers nor its image are there any more.
    """
    if _kept(host, settings, release):
        return "its kept containers"
    if host.run(engine.image_id(release.image)).ok:
        return "its image; its containers are gone"
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
    host.ask(compose.up_release(own(settings, release), place))
    return "new containers from its image"


def _kept(host: Host, settings: Settings, release: Release) -> tuple[Container, ...]:
    found = containers(host, settings, release)
    whole = {item.service for item in found} >= set(own(settings, release).app.services)
    return found if whole and len(found) >= release.containers else ()


def give_tag_back(host: Host, failed: Release, live: Release | None) -> None:
    """Take the image's name from a failed release that was another build of the live commit."""
    if live and live.image and live.tag == failed.tag and live.image != failed.image:
        host.ask(engine.tag_image(live.image, live.tag))


def publish_tags(host: Host, settings: Settings, known: tuple[Release, ...], now: Release) -> None:
    """Make `latest` the live image, and `rollback` the one that was live before it.

    A name whose image is gone goes too, rather than stand for another release.
    """
    name = settings.deploy.project
    target = releases.rollback_target(known, now)
    for release, word in ((now, "latest"), (target, "rollback")):
        if release and release.image and host.run(engine.image_id(release.image)).ok:
            host.ask(engine.tag_image(release.image, f"{name}:{word}"))
        elif host.run(engine.image_id(f"{name}:{word}")).ok:
            host.ask(engine.untag_image(f"{name}:{word}"))
