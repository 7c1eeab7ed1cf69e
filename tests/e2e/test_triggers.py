"""A push over git, and a webhook, each deploys in the box; what is hostile changes nothing."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from sandbox import box as boxes
from sandbox import contents
from sandbox.box import Box
from sandbox.shell import until
from sandbox.vps import container
from tests.e2e.conftest import AUTHOR, LONG, Developer, a_box, change_settings, newest
from tests.support.webhooks import github, gitlab, push

PUSHED = "ssh://vps/opt/shop/push.git"
ORIGIN = "/srv/git/shop.git"
ORIGIN_URL = f"ssh://vps{ORIGIN}"
QUEUE = "/opt/shop/triggers/queue"
NEW_SECRET = "planted-webhook-secret-4712"
BROKEN = "/usr/local/bin/chown"
BREAK = f"printf '#!/bin/sh\\nexit 1\\n' >{BROKEN}; chmod +x {BROKEN}"
ORIGINAL = """
git init --quiet --bare --initial-branch=main "$1"
git -C "$1" config receive.shallowUpdate true
"""


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box of this file's own, that systemd looks after."""
    with a_box(tmp_path_factory.mktemp("systemd"), container.SYSTEMD) as found:
        yield found


@pytest.fixture(scope="module")
def ann(shop: Developer) -> Developer:
    change_settings(shop.clone / "invoke.yaml", {"webhook": {"path": "/hooks/deploy"}})
    path = shop.clone / "invoke.yaml"
    shop.commit("invoke.yaml", f"{path.read_text()}git:\n  url: file://{ORIGIN}\n")
    subprocess.run(contents.script(shop.box, ORIGINAL, ORIGIN), check=True, timeout=60)
    return shop


@pytest.fixture(scope="module")
def pushing(ann: Developer) -> Developer:
    """A developer whose host was set up, and whose first push was deployed."""
    pushed(ann, ORIGIN_URL, "main")
    done = ann.inv("setup")
    assert done.code == 0, done.said
    assert f"A push deploys: git push {PUSHED} main" in done.out
    assert "/hooks/deploy" in done.out
    assert ann.on_host(f"cat {QUEUE}/secret") not in done.said
    again = ann.inv("setup")
    assert "Nothing to do" in again.out, again.said
    assert "outcome: success" in pushed(ann, PUSHED, "main")
    return ann


def examined(ann: Developer) -> dict[str, tuple[str, str]]:
    """Return what the doctor says of the triggers."""
    found = json.loads(ann.inv("doctor", "--json").out)["findings"]
    return {
        item["name"]: (item["state"], item["what"])
        for item in found
        if item["name"] in ("hook", "listener")
    }


def git(ann: Developer, *words: str) -> subprocess.Popen[str]:
    argv = ("git", "-C", str(ann.clone), *AUTHOR, *words)
    environ = contents.push_environment(ann.box, os.environ)
    return subprocess.Popen(argv, env=environ, stderr=subprocess.PIPE, text=True)


def pushed(ann: Developer, where: str, *refs: str) -> str:
    """Push, and return what was told."""
    with git(ann, "push", "--force", where, *refs) as process:
        said = process.communicate(timeout=LONG)[1]
    assert process.returncode == 0, said
    return said


def change(ann: Developer, name: str = "web.py", text: str = "# changed\n") -> str:
    return ann.commit(name, text, append=True)


def live(ann: Developer) -> str:
    """Return the commit that is live."""
    return str(ann.document("status")["release"]["sha"])


def comes_to(ann: Developer, trigger: str, sha: str) -> None:
    """Hold it to deploying a commit, in the end."""
    assert until(lambda: newest(ann) == (trigger, sha, 0), deadline=LONG, every=0.5)


def test_a_push_is_deployed_and_told_as_it_goes(pushing: Developer) -> None:
    sha = change(pushing)
    said = pushed(pushing, PUSHED, "main")
    assert f"remote: Deploying main at {sha[:7]}" in said
    assert said.index("remote: → build") < said.index("remote: outcome: success")
    assert live(pushing) == sha
    assert newest(pushing) == ("git push", sha, 0)
    assert pushing.document("report")["warnings"] == []


def test_settings_that_were_pushed_alone_are_told_and_do_not_count(pushing: Developer) -> None:
    change(pushing, "invoke.yaml", "tests:\n  coverage_threshold: 0\n")
    said = pushed(pushing, PUSHED, "main")
    pushing.back()
    assert "is not the one that this host was told" in said
    assert newest(pushing)[2] == 0


def test_a_push_that_fails_is_in_all_the_same(pushing: Developer) -> None:
    before = live(pushing)
    sha = change(pushing, "Dockerfile", "RUN exit 3\n")
    said = pushed(pushing, PUSHED, "main")
    pushing.back()
    assert "THE DEPLOYMENT FAILED (exit code 2)" in said
    assert pushing.on_host("git -C /opt/shop/push.git rev-parse main") == sha
    assert newest(pushing) == ("git push", sha, 2)
    assert live(pushing) == before


def test_other_branches_and_crafted_names_are_not_deployed(pushing: Developer) -> None:
    names = ["other", "$(touch${IFS}/pwned)", ";touch&/pwned", "main`id`", "a'b", "maín"]
    before = pushing.document("history", "--limit", "1")
    sha = change(pushing)
    pushing.git("tag", "--force", "main2")
    said = pushed(pushing, PUSHED, "main2", *(f"HEAD:refs/heads/{name}" for name in names))
    assert "Nothing is deployed: only main is." in said
    many = [f"HEAD:refs/heads/many/{number}" for number in range(2000)]
    assert "Nothing is deployed: only main is." in pushed(pushing, PUSHED, *many)
    assert pushing.document("history", "--limit", "1") == before
    assert pushing.on_host("ls /pwned", check=False) == ""
    assert f"remote: Deploying main at {sha[:7]}" in pushed(pushing, PUSHED, "main", "main:last")
    assert live(pushing) == sha


def test_a_large_push_is_deployed_like_any_other(pushing: Developer) -> None:
    (pushing.clone / "large").write_bytes(os.urandom(16 * 1024 * 1024))
    sha = change(pushing)
    assert "outcome: success" in pushed(pushing, PUSHED, "main")
    assert live(pushing) == sha
    pushing.git("rm", "--quiet", "large")


def test_whoever_hangs_up_leaves_the_deployment_alone(pushing: Developer) -> None:
    sha = change(pushing)
    with git(pushing, "push", PUSHED, "main") as process:
        assert process.stderr
        assert any("→ build" in line for line in process.stderr)
        process.terminate()
    comes_to(pushing, "git push", sha)
    assert live(pushing) == sha


def test_a_webhook_deploys_what_origin_has(pushing: Developer) -> None:
    url = f"{pushing.box.url}/hooks/deploy"
    secret = pushing.on_host(f"cat {QUEUE}/secret")
    for way in ("github", "gitlab"):
        sha = change(pushing)
        pushed(pushing, ORIGIN_URL, "main")
        body = push(sha=sha)
        headers = github(body, secret=secret) if way == "github" else gitlab(secret=secret)
        assert requests.post(url, data=body, headers=headers, timeout=LONG).status_code == 202
        assert requests.post(url, data=body, headers=headers, timeout=LONG).status_code == 409
        comes_to(pushing, "webhook", sha)
        assert live(pushing) == sha
    there = f"ls {QUEUE}/wanted.json"
    assert until(lambda: pushing.on_host(there, check=False) == "", deadline=LONG)


def test_who_hears_the_world_may_do_nothing_else(pushing: Developer) -> None:
    listener = "$(pgrep -o -f triggers.listen)"
    assert pushing.on_host(f"ps -o user= -p {listener}") == "shop-hooks"
    assert pushing.on_host(f"grep CapEff /proc/{listener}/status").split()[1].strip("0") == ""
    assert pushing.on_host(f"stat -c '%a %U' {QUEUE}/secret") == "600 shop-hooks"
    # Even as root it would find nothing there, in the file system that it was given.
    given = f"nsenter --mount --target {listener} -- find"
    seen = pushing.on_host(f"{given} /opt/shop /home /root -mindepth 1 -maxdepth 1").split()
    assert sorted(seen) == ["/opt/shop/proxy", "/opt/shop/triggers"]
    links = f"nsenter --net --target {listener} -- ip -brief link"
    assert [line.split()[0] for line in pushing.on_host(links).splitlines()] == ["lo"]
    held = pushing.on_host(f"grep -E '^(NoNewPrivs|Seccomp):' /proc/{listener}/status").split()
    assert held == ["NoNewPrivs:", "1", "Seccomp:", "2"]
    may = "setpriv --reuid shop-hooks --clear-groups"
    for what in ("docker ps", "cat /opt/shop/.env", "ls /opt/shop/backups", "touch /opt/shop/x"):
        assert pushing.on_host(f"{may} {what} 2>/dev/null || echo no") == "no", what


def test_deployments_that_fail_one_after_the_other_do_not_end_it(pushing: Developer) -> None:
    url = f"{pushing.box.url}/hooks/deploy"
    secret = pushing.on_host(f"cat {QUEUE}/secret")
    there = f"ls {QUEUE}/wanted.json"

    def tell(sha: str) -> int:
        body = push(sha=sha)
        headers = github(body, secret=secret)
        return requests.post(url, data=body, headers=headers, timeout=LONG).status_code

    sha = change(pushing)
    pushed(pushing, ORIGIN_URL, "main")
    pushing.on_host(f"mv {ORIGIN} {ORIGIN}.away")
    for _ in range(8):  # more than systemd lets a unit fail in ten seconds by itself
        assert tell(sha) == 202
        assert until(lambda: pushing.on_host(there, check=False) == "", deadline=LONG)
    assert newest(pushing)[2] != 0
    pushing.on_host(f"mv {ORIGIN}.away {ORIGIN}")
    assert tell(sha) == 202
    comes_to(pushing, "webhook", sha)


def hears(pushing: Developer) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        answer = requests.get(f"{pushing.box.url}/hooks/deploy", timeout=LONG)
        return (answer.status_code, answer.text) == (200, "listening\n")
    return False


def knows(pushing: Developer, secret: str) -> bool:
    """Tell whether the listener goes by a secret, by a push that it has no use for."""
    body = push("refs/heads/other")
    headers = github(body, secret=secret)
    url = f"{pushing.box.url}/hooks/deploy"
    status = requests.post(url, data=body, headers=headers, timeout=LONG).status_code
    assert status in (200, 403)
    return status == 200


def test_a_kill_and_a_reboot_leave_it_listening_and_lose_nothing(pushing: Developer) -> None:
    before = pushing.on_host("systemctl show --property=MainPID shop-listen")
    pushing.on_host("systemctl kill --signal=KILL shop-listen")
    assert until(lambda: hears(pushing), deadline=LONG)
    assert pushing.on_host("systemctl show --property=MainPID shop-listen") != before

    pushing.on_host("systemctl stop shop-deploy.path")
    sha = change(pushing)
    pushed(pushing, ORIGIN_URL, "main")
    body = push(sha=sha)
    headers = github(body, secret=pushing.on_host(f"cat {QUEUE}/secret"))
    url = f"{pushing.box.url}/hooks/deploy"
    assert requests.post(url, data=body, headers=headers, timeout=LONG).status_code == 202
    assert live(pushing) != sha
    subprocess.run(("docker", "restart", pushing.box.container), check=True, timeout=LONG)
    boxes.wait_until_ready(pushing.box)
    comes_to(pushing, "webhook", sha)
    assert live(pushing) == sha
    assert requests.post(url, data=body, headers=headers, timeout=LONG).status_code == 409


def test_a_webhook_of_somebody_else_changes_nothing(pushing: Developer) -> None:
    before = pushing.document("history", "--limit", "1")
    url = f"{pushing.box.url}/hooks/deploy"
    body = push()
    for headers in ({}, github(body), gitlab()):
        assert requests.post(url, data=body, headers=headers, timeout=LONG).status_code == 403

    def tell(_number: int) -> int:
        return requests.post(url, data=body, headers=github(body), timeout=LONG).status_code

    with ThreadPoolExecutor(100) as pool:
        assert set(pool.map(tell, range(1000))) == {403}
    large = requests.post(url, data=b"x" * 52_428_800, headers=github(b""), timeout=LONG)
    assert large.status_code == 413
    with socket.create_connection((pushing.box.address, 8000), LONG) as slow:
        slow.sendall(b"POST /hooks/deploy HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nx")
        too_slow = "journalctl --output=cat --unit=shop-listen | grep -c ^408"
        assert until(lambda: pushing.on_host(too_slow, check=False) == "1", deadline=LONG)
    assert pushing.on_host(f"ls {QUEUE}/wanted.json", check=False) == ""
    assert pushing.document("history", "--limit", "1") == before
    assert requests.get(url, timeout=LONG).text == "listening\n"
    assert requests.get(pushing.box.url, timeout=LONG).text.startswith("hello from ")


def test_what_setup_made_is_looked_at_mended_and_taken_away(pushing: Developer) -> None:
    assert examined(pushing) == {
        "hook": ("ok", "a push to /opt/shop/push.git deploys"),
        "listener": ("ok", "webhooks at /hooks/deploy are heard"),
    }
    checked = pushing.inv("secrets.check")
    assert checked.code == 0, checked.said
    pushing.on_host(f"chmod 0644 {QUEUE}/secret")
    assert f"{QUEUE}/secret: mode 644" in pushing.inv("secrets.check").said
    assert examined(pushing)["listener"][0] == "warning"
    before = pushing.on_host(f"cat {QUEUE}/secret; rm {QUEUE}/secret")
    # Who has taken the listener over leads root nowhere.
    pushing.on_host(
        f"cd {QUEUE}; rm -f lock; touch /led; for name in lock secret; do"
        " setpriv --reuid shop-hooks --clear-groups ln -s /led $name; done; chmod 0644 /led"
    )
    assert "+ listener" in pushing.inv("setup").out
    assert pushing.on_host("stat -c '%a %U %s' /led") == "644 root 0"
    assert pushing.on_host(f"cat {QUEUE}/secret") != before
    assert pushing.on_host(f"stat -c '%a %U' {QUEUE}/secret") == "600 shop-hooks"

    # A set-up that ends between a new secret and its hand-over leaves nobody with the old one.
    pushing.on_host(f"{BREAK}; echo WEBHOOK_SECRET={NEW_SECRET} >>/opt/shop/.env")
    assert pushing.inv("setup").code != 0
    assert pushing.on_host(f"cat {QUEUE}/secret") == NEW_SECRET
    assert not hears(pushing)
    pushing.on_host(f"rm {BROKEN}")
    assert "+ listener" in pushing.inv("setup").out
    assert knows(pushing, NEW_SECRET)
    another = f"{NEW_SECRET}-too"
    pushing.on_host(f"sed -i s/{NEW_SECRET}/{another}/ /opt/shop/.env {QUEUE}/secret")
    pushing.on_host(f"chown shop-hooks {QUEUE}/secret")
    assert "start the listener" in examined(pushing)["listener"][1]
    assert "+ listener" in pushing.inv("setup").out
    assert knows(pushing, another)
    assert not knows(pushing, NEW_SECRET)
    pushing.on_host(f"chown root {QUEUE}/secret")
    assert "hand " in pushing.inv("setup", "--plan").out
    assert "+ listener" in pushing.inv("setup").out
    assert pushing.on_host(f"stat -c '%a %U' {QUEUE}/secret") == "600 shop-hooks"

    change_settings(pushing.clone / "invoke.yaml", {"webhook": {"path": ""}})
    found = examined(pushing)
    assert found["hook"][0] == found["listener"][0] == "warning"
    assert "hear webhooks no more" in pushing.inv("setup").out
    assert pushing.on_host("ls /etc/systemd/system/shop-*", check=False) == ""
    assert "Nothing to do" in pushing.inv("setup").out
    assert examined(pushing) == {"hook": ("ok", "a push to /opt/shop/push.git deploys")}
