"""What the doctor makes of what machines say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import doctor
from deploy.checks import folders
from deploy.checks.finding import Finding, State, good, stop, stopping, warning
from deploy.doctor import checkup, door, host
from deploy.outcome import DeployFailed, Exit, Unreachable

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ALLOWED = {"/srv/shop": 0o755, "/srv/shop/backups": 0o700}


def test_what_stops_a_deployment_is_told_from_what_does_not() -> None:
    found = (good("a", "fine"), warning("b", "so so", "see to it"), stop("c", "no", "do it"))
    assert [item.name for item in stopping(found)] == ["c"]
    assert found[2].as_text() == "no (do it)"
    assert found[0].as_text() == "fine"


@pytest.mark.parametrize(
    ("there", "off"), [(100.0, -10.0), (110.5, 0.0), (111.0, 0.0), (119.0, 8.0)]
)
def test_the_way_to_the_host_is_no_skew(there: float, off: float) -> None:
    assert host.skew(there, before=110.0, after=111.0) == off


@pytest.mark.parametrize(
    ("lines", "states", "says"),
    [
        (["755 yes /srv/shop", "700 yes /srv/shop/backups"], [State.OK], "ann's alone"),
        (["700 yes /srv/shop"], [State.OK], "ann's alone"),
        (["777 yes /srv/shop"], [State.WARNING], "/srv/shop (777)"),
        (["750 yes /srv/shop/backups"], [State.WARNING], "/srv/shop/backups (750)"),
        (["755 no /srv/shop"], [State.STOPS], "ann may not write to /srv/shop"),
        (["775 no /srv/shop"], [State.STOPS, State.WARNING], "chown -R ann /srv/shop"),
        (["1755 yes /srv/shop"], [State.OK], "alone"),
    ],
)
def test_folders_are_for_us_to_write_and_for_nobody_else(
    lines: list[str], states: list[State], says: str
) -> None:
    user, there = folders.parse("\n".join(["ann", *lines]))
    found = folders.findings(user, there.values(), ALLOWED)
    assert [item.state for item in found] == states
    assert says in " ".join(item.as_text() for item in found)


@pytest.mark.parametrize(
    ("hours", "state"), [(0, State.OK), (25.9, State.OK), (26.1, State.WARNING)]
)
def test_a_backup_grows_old(hours: float, state: State) -> None:
    found = host.aged((NOW - timedelta(hours=hours)).isoformat(), NOW, 26)
    assert found.state is state
    assert ("database.max_age_hours" in found.what) is (state is State.WARNING)


def test_no_backup_is_none() -> None:
    assert host.aged("", NOW, 26).state is State.WARNING


TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0
   1: 0100007F:A000 0100007F:1F41 01 00000000:00000000 00:00000000 00000000     0
   2: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 0 0
   3: 0000000000000000FFFF00000200000A:0050 00000000000000000000000000000000:0000 0A 0 0
"""


def test_who_listens_is_told_from_who_is_connected() -> None:
    assert door.listening(TCP) == {
        (ip_address("127.0.0.1"), 8000),
        (ip_address("::"), 443),
        (ip_address("10.0.0.2"), 80),
    }


@pytest.mark.parametrize(
    ("there", "bind", "in_the_way"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.5", "127.0.0.1", False),
        ("127.0.0.5", "0.0.0.0", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("::", "127.0.0.1", True),
        ("::1", "127.0.0.1", False),
        ("127.0.0.5", "a-name", True),
    ],
)
def test_who_listens_elsewhere_is_not_in_the_way(there: str, bind: str, in_the_way: bool) -> None:  # noqa: FBT001
    assert door.meets(ip_address(there), bind) is in_the_way


@given(st.text())
def test_of_garbage_nobody_listens_or_a_port_is_read(text: str) -> None:
    assert door.listening(" ".join(text.split())) == set()


@pytest.mark.parametrize(
    ("start", "end", "state"),
    [
        ("Feb  1 00:00:00 2026", "May  2 00:00:00 2026", State.OK),
        ("Dec  1 00:00:00 2025", "Mar  2 00:00:00 2026", State.WARNING),
        ("Dec  1 00:00:00 2025", "Feb 28 00:00:00 2026", State.WARNING),
        ("Mar  1 06:00:00 2026", "Mar  1 18:00:00 2026", State.OK),  # of Caddy's own, 12 hours
    ],
)
def test_a_certificate_runs_out_by_its_own_measure(start: str, end: str, state: State) -> None:
    told = f"start {start} GMT\nexpire {end} GMT\n"
    assert door.lasting(told, "shop.example.org", NOW).state is state


@pytest.mark.parametrize("told", ["", "start no date\nexpire either\n", "expire \n"])
def test_where_no_certificate_is_shown_nothing_is_wrong_with_it(told: str) -> None:
    assert door.lasting(told, "shop.example.org", NOW).state is State.OK


def raising(error: Exception) -> checkup.Look:
    def look() -> tuple[Finding, ...]:
        raise error

    return look


def test_a_check_that_fails_is_a_finding() -> None:
    (failed,) = checkup.looked("x", raising(DeployFailed("No", why="because", next_step="df -h")))
    assert (failed.state, failed.cure) == (State.WARNING, "df -h")
    assert failed.what == "this could not be looked at: No: because"
    (fault,) = checkup.looked("x", raising(ValueError("odd")))
    assert "ValueError: odd" in fault.what


def test_a_host_that_is_gone_ends_the_checks_of_it_alone() -> None:
    looks: dict[str, checkup.Look] = {
        "a": lambda: (good("a", "fine"),),
        "b": raising(Unreachable("Gone", next_step="ssh vps true")),
        "c": raising(AssertionError("nobody asks it")),
    }
    found = list(checkup._there("vps", looks))
    assert [(item.name, item.state) for item in found] == [
        ("a", State.OK),
        ("reachable", State.STOPS),
    ]
    assert {item.where for item in found} == {"vps"}


def document(*found: Finding) -> dict[str, object]:
    told = [{**vars(item), "where": "here"} for item in found]
    return {"host": "vps", "ready": not stopping(found), "findings": told}


def test_what_was_found_is_told_with_its_cure_and_its_code() -> None:
    bad = document(good("a", "fine"), warning("b", "so so", "see to it"), stop("c", "no", "do it"))
    text = doctor.as_text(bad)
    assert "✓ a " in text
    assert "→ do it" in text
    assert text.endswith("1 of these would stop a deployment; 1 warning.")
    assert doctor.code(bad) is Exit.INVALID
    fine = document(good("a", "fine"))
    assert doctor.as_text(fine).endswith("Nothing stops a deployment; 0 warnings.")
    assert doctor.code(fine) is Exit.OK
