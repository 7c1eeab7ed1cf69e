"""The parts that have the host deploy by itself: what is pushed to it, and what a webhook wants."""

from __future__ import annotations

from deploy import traffic
from deploy.setup.site import Site
from deploy.triggers import install, service


def push_missing(site: Site) -> tuple[str, ...]:
    """Return what is to be done until a push deploys.

    Raises:
        Invalid: The host lacks what it takes.
    """
    return install.push_lacks(site.session)


def provide_push(site: Site) -> None:
    """Do it."""
    install.push(site.session)


def push_told(site: Site) -> tuple[str, ...]:
    """Say where to push to."""
    return install.push_told(site.session)


def listener_missing(site: Site) -> tuple[str, ...]:
    """Return what is to be done until webhooks are heard.

    Raises:
        Invalid: Something is, and nobody there may do it.
    """
    lacks = service.lacks(site.session)
    hindrance = service.hindrance(site.session) if lacks else None
    if hindrance:
        raise hindrance
    return lacks


def provide_listener(site: Site) -> None:
    """Do it."""
    service.install(site.session)


def listener_told(site: Site) -> tuple[str, ...]:
    """Say where webhooks go, and where their secret is."""
    settings, host = site.session.settings, site.host
    door = settings.deploy.url or traffic.front_door(settings, host.address)
    return service.told(site.session, door)
