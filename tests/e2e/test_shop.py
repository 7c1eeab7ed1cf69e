"""A second, different application, deployed by configuration alone, and rolled back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests

from sandbox.load import Load
from tests.e2e.conftest import Developer, Ended


@pytest.fixture(scope="module")
def ann(shop: Developer) -> Developer:
    return shop


@pytest.fixture(scope="module")
def three(ann: Developer) -> list[str]:
    """Three good releases, the last of them deployed under load."""
    found = []
    for number in (1, 2, 3):
        ann.commit("web.py", f"# {number}\n", append=True)
        with Load(f"{ann.box.url}/") as load:
            ended = ann.inv("deploy")
        assert ended.code == 0, ended.said
        if number > 1:
            assert load.figures().wrong == ()
            assert load.figures().sent > 100
        found.append(ann.live())
    return found


def image(ann: Developer, tag: str) -> str:
    asked = f"docker image inspect --format '{{{{.Id}}}}' shop:{tag}"
    return ann.on_host(asked, check=False)


def by_release(ann: Developer) -> dict[str, str]:
    """The image of each release that went live."""
    return {item["release"]: item["image"] for item in ann.document("history")}


def test_it_answers_at_its_own_front_door(ann: Developer, three: list[str]) -> None:
    answer = requests.get(ann.box.url, timeout=5)
    assert answer.text.startswith("hello from ")
    assert answer.text.split()[-1][:7] == three[-1].rpartition("-")[2]
    names = ann.on_host("docker ps --format '{{.Names}}'").split()
    assert sorted(names) == ["shop-web", "shop-worker", "shop_proxy"]


def test_status_says_what_machines_need(ann: Developer, three: list[str]) -> None:
    found = ann.document("status")
    assert set(found) >= {"host", "url", "healthy", "release", "rollback", "lock", "backup"}
    assert set(found["release"]) >= {"id", "sha", "ref", "image", "since"}
    assert (found["host"], found["url"], found["healthy"]) == ("vps", ann.box.url, True)
    assert found["release"]["id"] == three[2]
    assert found["rollback"]["id"] == three[1]
    assert found["backup"] is None
    assert three[2] in ann.inv("status").out
    assert len(ann.document("history", "--limit", "2")) == 2
    assert "deploy" in ann.inv("history").out
    assert "switch" in ann.inv("report").out
    assert ann.inv("smoke").out.startswith("✓ greeting")
    assert ann.inv("logs").code == 0
    assert ann.inv("logs", "--name=worker").code == 0
    assert ann.inv("logs", "--name=nothing").code == 7
    assert "outcome: success" in ann.inv("logs", "--name=deploy").out


def test_the_front_door_can_be_told_anew_a_hundred_times_without_a_loss(
    ann: Developer, three: list[str]
) -> None:
    again = (
        "docker exec shop_proxy caddy reload --force --config /etc/caddy/Caddyfile"
        " --adapter caddyfile 2>/dev/null"
    )
    with Load(f"{ann.box.url}/") as load:
        ann.on_host(f"for i in $(seq 100); do {again}; done")
    assert load.figures().wrong == ()
    assert load.figures().sent > 500


def test_rollbacks_go_back_one_by_one_and_never_forth(ann: Developer, three: list[str]) -> None:
    images = by_release(ann)
    with Load(f"{ann.box.url}/") as load:
        assert ann.inv("rollback").code == 0
    assert load.figures().wrong == ()
    assert ann.live() == three[1]
    assert (image(ann, "latest"), image(ann, "rollback")) == (images[three[1]], images[three[0]])
    assert ann.inv("rollback").code == 0
    assert ann.live() == three[0]
    assert ann.document("report")["warnings"] == []
    assert (image(ann, "latest"), image(ann, "rollback")) == (images[three[0]], "")
    ended = ann.inv("rollback")
    assert ended.code == 3
    assert "There is nothing to roll back to" in ended.err
    assert ann.live() == three[0]


def test_a_named_release_comes_back_from_its_image_when_its_container_is_gone(
    ann: Developer, three: list[str]
) -> None:
    ann.on_host(f"docker rm -f shop-web_{three[2]} shop-worker_{three[2]}")
    ended = ann.inv("rollback", "--to", three[2])
    assert ended.code == 0, ended.said
    assert "new containers from its image" in ended.err
    assert ann.live() == three[2]


@pytest.mark.parametrize("name", ["nowhere", "-x", "$(touch /tmp/x)"])
def test_a_release_that_is_not_there_is_refused(ann: Developer, name: str) -> None:
    before = ann.live()
    ended = ann.inv("rollback", f"--to={name}")
    assert ended.code == 3
    assert "There is no release" in ended.err
    assert ann.live() == before


def test_a_rollback_to_something_broken_is_critical_and_says_what_serves(
    ann: Developer, three: list[str]
) -> None:
    before = ann.live()
    source = f"/opt/shop/releases/{three[0]}/compose.yml"
    ann.on_host(f"docker rm -f shop-web_{three[0]} && sed -i 's/8080/9/; s/GREETING/X/' {source}")
    ended = ann.inv("rollback", "--to", three[0])
    assert ended.code == 5, ended.said
    assert f"{before} still serves" in ended.err
    assert ann.live() == before


def test_a_release_of_which_nothing_is_left_is_refused_untouched(
    ann: Developer, three: list[str]
) -> None:
    before = ann.live()
    gone = by_release(ann)[three[1]]
    ann.on_host(f"docker rm -f shop-web_{three[1]} shop-worker_{three[1]}")
    ann.on_host(f"docker image rm -f {gone}")
    ended = ann.inv("rollback", "--to", three[1])
    assert ended.code == 3, ended.said
    assert "neither containers nor an image" in ended.err
    assert ann.live() == before


def test_a_failed_release_is_never_a_target(ann: Developer) -> None:
    before = ann.live()
    ann.commit("web.py", "raise SystemExit('broken')\n")
    assert ann.inv("deploy").code == 3
    failed = ann.document("report")["release"]
    ann.back()
    ended = ann.inv("rollback", "--to", failed)
    assert ended.code == 3
    assert "never was live and healthy" in ended.err
    assert ann.live() == before


def test_when_the_way_back_fails_too_what_serves_is_left_alone(ann: Developer) -> None:
    before = ann.live()
    ann.commit("behaviour", "bad behind the proxy")
    ann.on_host(f"docker rm -f shop-web shop-worker && rm /opt/shop/releases/{before}/compose.yml")
    ended = ann.inv("deploy")
    ann.back()
    assert ended.code == 5, ended.said
    assert "The way back failed too" in ended.err
    assert "inv status" in ended.err
    assert requests.get(ann.box.url, timeout=5).status_code == 500
    names = ann.on_host("docker ps --format '{{.Names}}'").split()
    assert sorted(names) == ["shop-web", "shop-worker", "shop_proxy"]
    assert ann.inv("deploy").code == 0
    assert requests.get(ann.box.url, timeout=5).status_code == 200


def test_another_run_holds_the_lock_until_somebody_breaks_it(ann: Developer) -> None:
    before = ann.live()
    with begin(ann, "→ health") as run:
        ended = ann.inv("deploy")
        assert ended.code == 6
        assert "Another run holds the lock" in ended.err
        assert "at step cutover" in ended.err
        held = ann.document("status")["lock"]
        assert (held["what"], held["step"]) == ("deploy", "cutover")
        shown = ann.inv("unlock")
        assert shown.code == 7
        assert "the host's part of run" in shown.err
        assert ann.inv("unlock", "--yes").code == 0
        run.communicate(timeout=60)
        assert run.returncode == 143
    assert ann.document("status")["lock"] is None
    assert ann.inv("unlock").out == "The lock is free.\n"
    assert ann.live() == before


def test_one_that_waits_goes_next(ann: Developer) -> None:
    with begin(ann, "→ health") as run:
        ended = ann.inv("rollback", "--to", ann.live(), "--wait", "120")
        assert ended.code == 3, ended.said
        assert "is live already" in ended.err
        run.communicate(timeout=60)
        assert run.returncode == 3


def test_a_killed_run_is_ended_by_the_host_and_told_by_the_next(ann: Developer) -> None:
    before = ann.live()
    with begin(ann, "→ health") as run:
        run.kill()
    assert ann.live() == before
    ended = ann.inv("deploy")
    assert ended.code == 0, ended.said
    assert "an earlier run goes on by itself on the host: waiting for its end" in ended.err
    assert "lost its caller: the host brought it to its end" in ended.err
    names = ann.on_host("docker ps --format '{{.Names}}'").split()
    assert sorted(names) == ["shop-web", "shop-worker", "shop_proxy"]


@contextmanager
def begin(ann: Developer, line: str) -> Iterator[subprocess.Popen[str]]:
    """Begin a deployment of a release that never answers, up to a line of its progress."""
    ann.commit("behaviour", "another port")
    with ann.begun("deploy", line, STARTUP_WAIT="15") as run:
        ann.back()
        yield run


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_cleans_up(ann: Developer, number: signal.Signals, code: int) -> None:
    before = ann.live()
    with begin(ann, "→ health") as run:
        run.send_signal(number)
        run.communicate(timeout=60)
        assert run.returncode == code
    assert ann.live() == before
    assert ann.document("status")["lock"] is None
    names = ann.on_host("docker ps --format '{{.Names}}'").split()
    assert sorted(names) == ["shop-web", "shop-worker", "shop_proxy"]
    assert ann.document("report")["code"] == code


def test_fab_needs_a_host(ann: Developer) -> None:
    done = subprocess.run(
        (sys.executable, "-m", "fabric", "status"),
        cwd=ann.clone,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 7
    assert "fab needs a host" in done.stderr


def test_fab_deploys_what_the_host_fetches(ann: Developer) -> None:
    ann.on_host("git init -q --bare -b main /srv/git/shop.git && git init -q --bare /opt/shop/repo")
    ann.on_host("git -C /opt/shop/repo remote add origin file:///srv/git/shop.git")
    ssh = f"ssh -F '{ann.box.ssh_config}'"
    ann.git("-c", f"core.sshCommand={ssh}", "push", "-q", "ssh://vps/srv/git/shop.git", "main")
    first: Ended = ann.fab("deploy")
    assert first.code == 0, first.said
    report = json.loads(ann.fab("report", "--json").out)
    assert (report["trigger"], report["sha"]) == ("fab", ann.git("rev-parse", "HEAD"))
    assert [step["state"] for step in report["steps"] if step["name"] == "ship"] == ["skipped"]
    ann.git("checkout", "-q", "-b", "feature")
    ann.commit("web.py", "# feature\n", append=True)
    ann.git("-c", f"core.sshCommand={ssh}", "push", "-q", "ssh://vps/srv/git/shop.git", "feature")
    sha = ann.git("rev-parse", "HEAD")
    ann.git("checkout", "-q", "main")
    assert ann.fab("deploy", "--ref", "feature").code == 0
    assert json.loads(ann.fab("status", "--json").out)["release"]["sha"] == sha
    assert ann.fab("deploy", "--ref", "no-such-branch").code == 7
    assert ann.fab("rollback").code == 0
    assert json.loads(ann.fab("status", "--json").out)["release"]["sha"] == report["sha"]
