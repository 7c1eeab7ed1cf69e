"""Who gets the traffic: asked from the proxy, changed at once, names along with it."""

from __future__ import annotations

import time

from deploy import host as hosts
from deploy import releases
from deploy.docker import compose, engine, proxy
from deploy.docker.engine import Container
from deploy.host import Host
from deploy.layout import Layout
from deploy.outcome import DeployFailed, Failure
from deploy.releases import Release
from deploy.settings import Settings

SWITCH = 15  # seconds the proxy gets to work by its new configuration


def upstream_of(settings: Settings, release: str) -> str:
    """Return the name that the proxy knows a release by."""
    return compose.service_name(settings.app.services[0], release)


def current_upstreams(host: Host, settings: Settings) -> tuple[str, ...]:
    """Return where the running proxy sends traffic, nowhere when it does not run."""
    result = host.run(proxy.configuration(settings))
    return proxy.upstreams(result.out) if result.ok else ()


def live(host: Host, settings: Settings, known: tuple[Release, ...]) -> Release | None:
    """Return the release that the proxy sends traffic to, or would when it is started."""
    names = current_upstreams(host, settings)
    if not names:
        text = hosts.read(host, Layout(settings.deploy.root).caddyfile)
        names = tuple(text.replace(":", " ").split())
    for item in known:
        if upstream_of(settings, item.id) in names:
            return item
    return None


def point(host: Host, settings: Settings, release: Release | None) -> None:
    """Send all traffic to a release, or to none, and see that the proxy does.

    Raises:
        Failure: The proxy does not; its configuration file is then the one before.
    """
    layout = Layout(settings.deploy.root)
    upstream = upstream_of(settings, release.id) if release else None
    before = hosts.read(host, layout.caddyfile)
    hosts.replace(host, layout.caddyfile, proxy.caddyfile(settings, upstream).encode(), "0644")
    try:
        host.ask(proxy.reload(settings))
        _await_upstream(host, settings, upstream)
    except Failure:
        if before:
            hosts.replace(host, layout.caddyfile, before.encode(), "0644")
        raise


def _await_upstream(host: Host, settings: Settings, upstream: str | None) -> None:
    wanted = (upstream,) if upstream else ()
    ends = time.monotonic() + SWITCH
    while (found := current_upstreams(host, settings)) != wanted:
        if time.monotonic() > ends:
            raise DeployFailed(
                "The proxy does not send the traffic where it was told to",
                where=host.name,
                why=f"wanted {wanted or 'nowhere'}, it says {found or 'nowhere'}",
                next_step=f"docker logs {settings.proxy.container}",
            )
        time.sleep(0.2)


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


def stop(host: Host, settings: Settings, release: Release) -> None:
    """Stop a release and keep it; its requests in flight get the drain time."""
    found = containers(host, settings, release)
    if found:
        names = [item.id for item in found]
        host.ask(engine.stop(names, settings.proxy.drain_timeout))


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
        for item in kept:
            if not item.running:
                host.ask(engine.start(item.id))
        return "its kept containers"
    place = Layout(settings.deploy.root).place(release.id, release.tag)
    host.ask(engine.tag_image(release.image, release.tag))
    host.ask(compose.up_release(settings, place))
    return "new containers from its image"


def _kept(host: Host, settings: Settings, release: Release) -> tuple[Container, ...]:
    found = containers(host, settings, release)
    whole = {item.service for item in found} >= set(settings.app.services)
    return found if whole else ()


def publish_tags(host: Host, settings: Settings, known: tuple[Release, ...], now: Release) -> None:
    """Make `latest` the live image, and `rollback` the one that was live before it."""
    name = settings.deploy.project
    host.ask(engine.tag_image(now.image, f"{name}:latest"))
    target = releases.rollback_target(known, now)
    if target and target.image:
        host.ask(engine.tag_image(target.image, f"{name}:rollback"))
    elif host.run(engine.image_id(f"{name}:rollback")).ok:
        host.ask(engine.untag_image(f"{name}:rollback"))
