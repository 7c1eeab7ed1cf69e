"""Checks of the front door: its ports, and its certificate."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from deploy import releases, traffic
from deploy.checks.finding import Finding, good, stop, warning
from deploy.command import script
from deploy.docker import proxy
from deploy.doctor.visit import Visit
from deploy.releases import Release

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
LISTENING = "cat /proc/net/tcp /proc/net/tcp6 2>/dev/null || true"
LISTEN = "0A"  # as /proc/net/tcp writes it
OURS = 'docker port "$1" 2>/dev/null || true'
LEAST = 0.15  # of a certificate's time; Caddy renews when a third is left
DATE = "%b %d %H:%M:%S %Y GMT"  # as curl tells it
CERTIFICATE = """
curl --silent --verbose --insecure --output /dev/null --max-time 10 --noproxy '*' \
  --connect-to "$1:443:127.0.0.1:443" --url "https://$1/" 2>&1 |
  sed -n 's/^[*] *\\(start\\|expire\\) date: */\\1 /p'
"""


def running(visit: Visit) -> Iterator[Finding]:
    """See that the front door runs where a release is live."""
    name = visit.session.settings.proxy.container
    live = _live(visit)
    if live is None:
        yield good("front door", "no release is live yet; a deployment starts it")
    elif _runs(visit):
        yield good("front door", f"it sends the traffic to {live.id}")
    else:
        what = f"{name} does not run, so that nobody reaches {live.id}, which is live"
        cure = f"docker start {name} there, or inv deploy, which starts it too"
        yield warning("front door", what, cure)


def _live(visit: Visit) -> Release | None:
    session = visit.session
    known = releases.load(session.target, session.layout)
    return traffic.live(session.target, session.settings, known)


def _runs(visit: Visit) -> bool:
    return visit.session.target.run(proxy.ask_upstream(visit.session.settings)).ok


def ports(visit: Visit) -> Iterator[Finding]:
    """See that the ports of the front door are free, or its own."""
    session = visit.session
    settings, host = session.settings, session.target
    heard = listening(host.ask(script(LISTENING)))
    ours = host.run(script(OURS, settings.proxy.container)).out
    mine = {int(port) for port in re.findall(r":(\d+)$", ours, re.MULTILINE)}
    for port in proxy.ports(settings):
        if port in mine:
            yield good("ports", f"{port} is the proxy's")
        elif any(at == port and meets(address, visit.run.bind) for address, at in heard):
            cure = f"see who has it: ss -ltnp 'sport = :{port}'; stop that, or set proxy.port"
            yield stop("ports", f"port {port} is taken by another program or container", cure)
        else:
            yield good("ports", f"{port} is free")


def listening(text: str) -> set[tuple[Address, int]]:
    """Given /proc/net/tcp, return the addresses and ports that somebody listens on."""
    rows = (line.split() for line in text.splitlines())
    ends = [row[1].partition(":") for row in rows if len(row) > 3 and row[3] == LISTEN]
    return {(_address(place), int(port, 16)) for place, _, port in ends}


def _address(text: str) -> Address:
    """Given an address as the kernel writes it, each word of 32 bits backwards, return it."""
    words = [bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8)]
    found = ipaddress.ip_address(b"".join(words))
    return getattr(found, "ipv4_mapped", None) or found


def meets(there: Address, bind: str) -> bool:
    """Tell whether who listens at an address is in the way of who binds to another.

    Args:
        there: Where somebody listens.
        bind: What the proxy would bind to.
    """
    try:
        wanted: Address | None = ipaddress.ip_address(bind)
    except ValueError:  # a name: what it stands for, the host knows
        wanted = None
    return wanted is None or there.is_unspecified or wanted.is_unspecified or there == wanted


def certificate(visit: Visit) -> Iterator[Finding]:
    """See how long the certificate of the domain is good, as the front door shows it."""
    domain = visit.session.settings.proxy.domain
    # Of a door that should run and does not, nothing can be said: that is a finding of its own.
    if domain and (_runs(visit) or _live(visit) is None):
        told = visit.session.target.run(script(CERTIFICATE, domain, deadline=20)).out
        yield lasting(told, domain, datetime.now(UTC))


def lasting(told: str, domain: str, now: datetime) -> Finding:
    """Given when a certificate begins and ends, as curl tells it, return how it is with it.

    Args:
        told: A line for each.
        domain: The domain.
        now: The time now.
    """
    dates = {}
    for line in told.splitlines():
        key, _, text = line.partition(" ")
        try:
            dates[key] = datetime.strptime(f"{text.strip()} +0000", f"{DATE} %z")
        except ValueError:
            continue
    if not {"start", "expire"} <= dates.keys():
        return good("certificate", f"the front door shows none for {domain} yet")
    start, end = dates["start"], dates["expire"]
    until = f"the certificate of {domain} ends {end:%Y-%m-%d %H:%M} UTC"
    if (end - now) / max(end - start, timedelta(seconds=1)) > LEAST:
        return good("certificate", until)
    cure = "docker logs of the proxy says why it is not renewed; DNS and port 80 must lead there"
    return warning("certificate", until, cure)
