"""Faults of the world around a run: links, firewalls, engines, machines, disks and clocks.

Each is brought about at a stated moment of a real deployment, while requests arrive at the front
door; then the next deployment must find everything, say it, and end well.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.box import Box
from sandbox.load import Load
from sandbox.shell import ask, must, until
from tests.e2e.conftest import (
    LONG,
    ROOT,
    Developer,
    Ended,
    change_settings,
    dropping,
    going,
    in_box,
)

LIVE = ["shop-web", "shop-worker", "shop_proxy"]


@pytest.fixture(scope="module")
def ann(two_releases: Developer) -> Developer:
    return two_releases


def live_now(ann: Developer) -> str:
    """Return the commit that answers at the front door."""
    return ann.on_host("curl -sf http://127.0.0.1:8000/").split()[-1][:7]


def next_run(ann: Developer, good: str = "") -> list[str]:
    """Deploy something good; see that all is well then, and return what was said of before.

    Args:
        ann: Who deploys.
        good: A release that is, though the record of its run does not say so.
    """
    watch(ann, 1)
    ann.commit("behaviour", "good")
    ended = ann.inv("deploy", "--wait", "120")
    assert ended.code == 0, ended.said
    well(ann, good)
    return warnings(ended)


def well(ann: Developer, also: str = "") -> None:
    """See that one healthy release serves, alone, and that the one before it is good."""
    status = ann.document("status")
    assert status["healthy"], status
    assert status["lock"] is None
    assert sorted(ann.on_host("docker ps --format '{{.Names}}'").split()) == LIVE
    good = {item["release"] for item in ann.document("history") if item["code"] == 0} | {also}
    assert status["release"]["id"] in good
    assert status["rollback"]["id"] in good
    assert status["rollback"]["id"] != status["release"]["id"]
    asked = "docker image inspect --format '{{.Id}}' shop:rollback"
    assert ann.on_host(asked) == status["rollback"]["image"]


def watch(ann: Developer, seconds: int) -> None:
    """Have the next release watched that long after the switch."""
    change_settings(ann.clone / "invoke.yaml", {"smoke": {"watch_seconds": seconds}})


def warnings(ended: Ended) -> list[str]:
    """Return what a run warned of."""
    lines = ended.err.splitlines()
    return [line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")]


def cut(box: Box) -> None:
    """End every connection over SSH, from the side of the host."""
    in_box(box, "pkill -KILL -x sshd-session")


def test_a_link_that_is_cut_before_the_host_takes_over_ends_the_run(
    ann: Developer, said: Path
) -> None:
    before = ann.live()
    ann.commit("behaviour", "starts after 1")
    with Load(f"{ann.box.url}/") as load, going(ann, said) as run:
        run.reach("→ build")
        cut(ann.box)
        ended = run.end()
    assert ended.code == 8, ended.said
    assert "The link to the host was lost, and the lock with it" in ended.err
    assert load.figures().wrong == ()
    assert ann.live() == before
    told = next_run(ann)
    assert len(told) == 1, told
    assert "lost its link to the host: unreachable" in told[0]


def test_a_link_that_is_cut_while_the_host_works_is_made_anew(ann: Developer, said: Path) -> None:
    ann.commit("behaviour", "starts after 8")
    with Load(f"{ann.box.url}/") as load, going(ann, said) as run:
        run.reach("→ health")
        cut(ann.box)
        ended = run.end()
    assert ended.code == 0, ended.said
    assert "the host goes on by itself, attaching again" in ended.err
    assert load.figures().wrong == ()
    well(ann)
    assert next_run(ann) == []


def test_packets_that_are_dropped_before_the_host_takes_over_end_the_run(
    ann: Developer, said: Path
) -> None:
    """Meanwhile the lock becomes free by itself, and somebody else goes on."""
    ann.commit("behaviour", "starts after 1")
    with Load(f"{ann.box.url}/") as load, going(ann, said) as run:
        run.reach("→ build")
        with dropping(ann.box):
            ann.commit("behaviour", "good")
            other = ann.inv("deploy", "--wait", "120")
            ended = run.end()
    assert ended.code == 8, ended.said
    assert "connection failed" in ended.err or "The link to the host was lost" in ended.err
    assert other.code == 0, other.said
    told = warnings(other)
    assert len(told) == 1, told
    assert "lost its link to the host: unreachable" in told[0]
    assert load.figures().wrong == ()
    well(ann)


def test_packets_that_are_dropped_while_the_host_works_stop_nothing(
    ann: Developer, said: Path
) -> None:
    ann.commit("behaviour", "starts after 32")
    with Load(f"{ann.box.url}/") as load, going(ann, said) as run:
        run.reach("→ health")
        with dropping(ann.box):
            run.reach("attaching again")
        ended = run.end()
    assert ended.code == 0, ended.said
    assert load.figures().wrong == ()
    well(ann)
    assert next_run(ann) == []


def answers(ann: Developer) -> bool:
    """Tell whether the front door answers well."""
    return ask(("curl", "-sf", "-m", "5", f"{ann.box.url}/"), deadline=10).ok


def came_back(ann: Developer) -> None:
    """See that the service comes back by itself."""
    assert until(lambda: answers(ann), deadline=LONG, every=0.2)


def only_away(load: Load) -> None:
    """See that the door was shut for a while, and never open with nothing behind it."""
    figures = load.figures()
    assert figures.failed < figures.sent
    assert not [item for item in figures.wrong if "503" in item], figures


ENGINE = {
    # The containers of both releases die and come back; what was begun is undone after that.
    "KILL": ("→ health", 3, ""),
    # In good order, and when the traffic has moved: it goes back to where it came from.
    "TERM": ("→ watch", 4, "is live and healthy"),
}


@pytest.mark.parametrize("signal", ENGINE)
def test_an_engine_that_is_restarted_leaves_one_release(
    ann: Developer, said: Path, signal: str
) -> None:
    before = ann.live()
    line, code, what = ENGINE[signal]
    watch(ann, 8)
    ann.commit("behaviour", "starts after 6")
    with Load(f"{ann.box.url}/") as load, going(ann, said) as run:
        run.reach(line)
        in_box(ann.box, f"kill -s {signal} $(cat /run/docker.pid)")
        ended = run.end()
        came_back(ann)
    only_away(load)
    assert ended.code == code, ended.said
    assert what in ended.err
    assert ann.live() == before
    well(ann)
    assert next_run(ann) == []


def test_a_host_that_is_restarted_undoes_what_had_no_traffic(ann: Developer, said: Path) -> None:
    before = ann.live()
    ann.commit("behaviour", "starts after 6")
    with Load(f"{ann.box.url}/") as load, going(ann, said) as run:
        run.reach("→ health")
        must(("docker", "restart", ann.box.container), deadline=120, next_step="docker ps")
        came_back(ann)
        ended = run.end()
    only_away(load)
    assert ended.code == 3, ended.said
    assert ann.live() == before
    well(ann)
    assert next_run(ann) == []


def test_a_host_that_loses_its_power_is_put_right_by_its_client(ann: Developer, said: Path) -> None:
    before = ann.live()
    ann.commit("behaviour", "starts after 6")
    with Load(f"{ann.box.url}/") as load, going(ann, said) as run:
        run.reach("→ health")
        power_cut(ann.box)
        ended = run.end()
    only_away(load)
    assert ended.code == 3, ended.said
    assert f"what it had begun was undone; {before} serves" in ended.err
    well(ann)
    assert next_run(ann) == []


def test_a_host_that_loses_its_power_after_the_switch_serves_the_new_release(
    ann: Developer, said: Path
) -> None:
    """Nobody is there to put it right, until the next run."""
    watch(ann, 8)
    sha = ann.commit("behaviour", "starts after 1")
    with Load(f"{ann.box.url}/") as load, going(ann, said) as run:
        run.reach("→ watch")
        run.process.kill()
        power_cut(ann.box)
        came_back(ann)
    only_away(load)
    assert live_now(ann) == sha[:7]
    told = next_run(ann, ann.live())
    assert len(told) == 1, told
    assert "ended early, at step watch" in told[0]


def power_cut(box: Box) -> None:
    """Take the power away, and give it back."""
    for words in (("kill", "--signal=KILL"), ("start",)):
        must(("docker", *words, box.container), deadline=120, next_step="docker ps")


SMALL = """
mkdir -p /mnt/whole /mnt/small
mount --bind /opt/shop /mnt/whole
mount -t tmpfs -o size=400m,mode=0755 tmpfs /mnt/small
cp -a /mnt/whole/. /mnt/small
mount --bind /mnt/small /opt/shop
mount --bind /mnt/whole/proxy /opt/shop/proxy # where the running proxy has its eyes
"""
LARGE = """
umount /opt/shop/proxy
umount --lazy /opt/shop
find /mnt/whole -mindepth 1 -maxdepth 1 ! -name proxy -exec rm -rf {} +
rm -rf /mnt/small/proxy /mnt/small/filler
cp -a /mnt/small/. /mnt/whole
umount --lazy /mnt/small /mnt/whole
"""


@pytest.fixture
def small_disk(ann: Developer) -> Iterator[None]:
    """A disk of 400 MB under deploy.root, which can be filled without harm to anybody."""
    in_box(ann.box, SMALL)
    try:
        yield
    finally:
        in_box(ann.box, LARGE)


FULL = {
    "→ recover": (0, 3),
    "→ build": (8192, 3),  # enough for the journal, not for the plan of the host's part
    "→ health": (0, 3),
}


@pytest.mark.parametrize("line", FULL)
def test_a_disk_that_fills_ends_the_run_with_a_word(
    ann: Developer, small_disk: None, said: Path, line: str
) -> None:
    before = ann.live()
    left, code = FULL[line]
    change_settings(ann.clone / "invoke.yaml", {"deploy": {"minimum_free_mb": 1}})
    ann.commit("behaviour", "starts after 3")
    with Load(f"{ann.box.url}/") as load, going(ann, said) as run:
        run.reach(line)
        fill = "cat /dev/zero >/opt/shop/filler 2>/dev/null || true; "
        in_box(ann.box, f"{fill}truncate -s -{left} /opt/shop/filler")
        ended = run.end()
    assert ended.code == code, ended.said
    assert "The disk of vps is full" in ended.err
    assert load.figures().wrong == ()
    assert ann.live() == before
    in_box(ann.box, "rm /opt/shop/filler")
    told = next_run(ann)
    assert len(told) <= 1, told
    assert all("ended early" in item or "lost its link" in item for item in told)


def test_what_does_not_fit_is_refused_where_it_would_go(ann: Developer, small_disk: None) -> None:
    """A small disk under deploy.root, in the build (/dev/shm) and where the engine unpacks."""
    before = ann.live()
    change_settings(ann.clone / "invoke.yaml", {"deploy": {"minimum_free_mb": 1024}})
    with Load(f"{ann.box.url}/") as load:
        ended = ann.inv("deploy")
        assert ended.code == 7, ended.said
        assert "MB free on /opt/shop" in ended.err
        assert "deploy.minimum_free_mb" in ended.err
        change_settings(ann.clone / "invoke.yaml", {"deploy": {"minimum_free_mb": 1}})
        ann.commit("Dockerfile", "RUN cat /dev/zero >/dev/shm/full\n", append=True)
        ended = ann.inv("deploy")
        ann.back()
        assert ended.code == 2, ended.said
        assert "No space left on device" in ended.err
        change_settings(ann.clone / "invoke.yaml", {"deploy": {"minimum_free_mb": 1}})
        ann.commit("behaviour", "does not arrive")
        in_box(ann.box, "mount -t tmpfs -o size=4k tmpfs /var/lib/docker/tmp")
        try:
            ended = ann.inv("deploy")
        finally:
            in_box(ann.box, "umount --lazy /var/lib/docker/tmp")
        assert ended.code == 3, ended.said
        assert "The image did not arrive on the host" in ended.err
    assert load.figures().wrong == ()
    assert ann.live() == before
    assert next_run(ann) == []


@pytest.mark.parametrize("where", ["here", "host"])
def test_a_clock_that_is_a_day_behind_changes_no_order(
    ann: Developer, said: Path, where: str
) -> None:
    before = ann.live()
    ann.commit("behaviour", f"late {where}")
    script = str(ROOT / "tests/support/yesterday.py")
    with Load(f"{ann.box.url}/") as load, going(ann, said, script, where) as run:
        ended = run.end()
    assert ended.code == 0, ended.said
    assert load.figures().wrong == ()
    well(ann)
    late = ann.live()
    assert ann.document("status")["rollback"]["id"] == before
    records = ann.document("history")
    assert (records[0]["release"], records[0]["seconds"] >= 0) == (late, True)
    told = next_run(ann)
    assert all("the clock here is behind" in item for item in told)
    assert ann.document("status")["rollback"]["id"] == late
    assert [item["release"] for item in ann.document("history")[:2]] == [ann.live(), late]
    assert ann.inv("rollback").code == 0
    assert ann.live() == late
