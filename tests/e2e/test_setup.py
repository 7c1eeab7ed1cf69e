"""A bare box made ready, examined, and deployed to; and what the doctor says when it is not."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox import contents
from tests.e2e.conftest import HOME, Developer, Ended, change_settings, going

URL = f"ssh://root@localhost{contents.REPOSITORY}"
WISH = (
    *("setup", "--github-url", URL, "--git-email", "vps@example.org", "--git-name", "The VPS"),
    "--install",
)
OURS = "/srv/deploys"  # the root of a user who is not root
TRACES = (HOME, "/root", "/etc", "/var/spool/cron", "/home")
TRUST = "/root/.ssh/authorized_keys"
CLEAN = f"""
crontab -r || true; crontab -u deploy -r || true
if [ -e {TRUST}.before ]; then mv {TRUST}.before {TRUST}; fi
umount {HOME} || true
rm -rf {OURS} /usr/local/bin/date
"""
# A VPS that has nothing of ours, lacks some programs, and knows the key that lets us in.
BARE = f"""
rm -rf {HOME}
cp -p {TRUST} {TRUST}.before
apt-get purge -qq -y docker-compose curl >/dev/null
"""
LEFT = {
    **dict.fromkeys(("run", "what", "machine", "since", "step"), "some"),
    "who": "bob",
}
WRONG = f"""
cd {HOME}
chmod 0777 backups; chmod 0644 .env
mv ssh/deploy_key ssh/other
echo '{json.dumps(LEFT)}' >lock.owner
crontab -r
sed -i 's/"at": "20[0-9][0-9]-/"at": "2020-/' backups/*.json
printf '#!/bin/sh\\nexec /usr/bin/date -d "-3 hours" "$@"\\n' >/usr/local/bin/date
chmod +x /usr/local/bin/date
rm -f push.git/hooks/post-receive
"""
RIGHT = f"""
cd {HOME}
mv ssh/other ssh/deploy_key; rm lock.owner /usr/local/bin/date
"""
SMALL = f"mount -t tmpfs -o size=2m tmpfs {HOME}"


@pytest.fixture(scope="module")
def ann(developer: Developer) -> Iterator[Developer]:
    """A developer with a bare VPS, and a repository that it may fetch from, given a key."""
    contents.seed(developer.box, developer.clone)
    developer.on_host(BARE)
    yield developer
    developer.on_host(CLEAN, check=False)


def traces(ann: Developer) -> str:
    """Return what there is on the host, and when each of it was changed."""
    folders = " ".join(TRACES)
    found = f"find {folders} -printf '%p %m %U %T@ %s\\n' 2>/dev/null | sort; crontab -l 2>&1"
    return ann.on_host(found, check=False)


def states(ended: Ended) -> dict[str, str]:
    """Return what became of each part of a set-up, by the sign before it."""
    lines = [line.split(maxsplit=2) for line in ended.out.splitlines()]
    return {words[1]: words[0] for words in lines if len(words) > 2 and words[0] in "✓+→✗…"}


def public_key(ended: Ended) -> str:
    (key,) = (line for line in ended.out.splitlines() if line.startswith("ssh-ed25519 "))
    return key


def examined(ann: Developer, *words: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Type `fab doctor --json`; of several findings of a name return the worst."""
    ended = ann.fab("doctor", "--json", *words)
    order = ("ok", "warning", "stops")
    found = sorted(json.loads(ended.out)["findings"], key=lambda item: order.index(item["state"]))
    return ended.code, {item["name"]: item for item in found}


def test_a_plan_says_what_would_be_done_and_does_nothing(ann: Developer) -> None:
    before = traces(ann)
    ended = ann.fab(*WISH, "--plan")
    assert ended.code == 0, ended.said
    assert set(states(ended).values()) <= {"→", "✓"}
    assert f"make {HOME} and its folders" in ended.out
    assert f"clone {URL}" in ended.out
    assert "Nothing was changed" in ended.out
    assert traces(ann) == before


def test_a_bare_box_is_ready_after_a_kill_and_a_key_and_is_deployed_to(
    ann: Developer, said: Path
) -> None:
    with going(ann, said, "-m", "fabric", "-H", "vps", *WISH, **ann.environment) as run:
        run.reach("→ timer")
    assert ann.on_host(f"test -d {HOME}/repo || echo none") == "none"

    assert ann.on_host("docker compose version && curl --version")
    waits = ann.fab(*WISH)
    assert waits.code == 7, waits.said
    assert states(waits)["clone"] == "✗"
    assert states(waits)["folders"] == states(waits)["environment"] == "✓"
    assert "SHA256:" in waits.out
    ann.on_host(f"echo {shlex.quote(public_key(waits))} >>{TRUST}")

    ready = ann.fab(*WISH)
    assert ready.code == 0, ready.said
    assert states(ready)["clone"] == states(ready)["identity"] == "+"
    secret = ann.on_host(f"sed -n \"s/^TELEGRAM_WEBHOOK_SECRET='\\(.*\\)'/\\1/p\" {HOME}/.env")
    assert len(secret) > 20
    assert secret not in waits.said + ready.said
    assert ann.on_host(f"stat -c %a {HOME}/.env {HOME}/ssh/deploy_key").split() == ["600", "600"]
    assert ann.on_host(f"git -C {HOME}/repo config user.name") == "The VPS"

    before = traces(ann)
    for words in (WISH, ("setup",), (*WISH, "--plan")):
        again = ann.fab(*words)
        assert again.code == 0, again.said
        assert set(states(again).values()) == {"✓"}
        assert "Nothing to do" in again.out
        assert public_key(again) == public_key(waits)
    code, found = examined(ann)
    assert code == 0
    assert {name for name, item in found.items() if item["state"] != "ok"} <= {"remote"}
    assert traces(ann) == before

    deployed = ann.fab("deploy")
    assert deployed.code == 0, deployed.said
    assert ann.live()
    kept = ann.on_host(f"sed -n \"s/^TELEGRAM_WEBHOOK_SECRET='\\(.*\\)'/\\1/p\" {HOME}/.env")
    assert kept == secret


def test_all_that_is_wrong_is_found_at_once_and_set_up_mends_what_it_can(ann: Developer) -> None:
    assert ann.fab("backup").code == 0
    code, found = examined(ann)
    assert code == 0
    assert found["backup"]["what"].startswith("the newest good backup is")
    assert found["ports"]["what"] == "8000 is the proxy's"

    ann.on_host(WRONG)
    try:
        code, found = examined(ann)
    finally:
        ann.on_host(RIGHT)
    assert code == 7
    bad = {name: item["state"] for name, item in found.items() if item["state"] != "ok"}
    assert bad.pop("remote") == "warning"  # of the developer's own clone
    assert bad == {
        "backup": "warning",
        "clock": "warning",
        "environment": "warning",
        "fetch": "stops",
        "folders": "warning",
        "hook": "warning",
        "lock": "warning",
        "timer": "warning",
    }
    assert "3:00:00 h behind" in found["clock"]["what"]
    assert "bob" in found["lock"]["what"]
    assert found["timer"]["cure"] == "fab -H vps backup.schedule"

    mended = ann.fab(*WISH)
    assert mended.code == 0, mended.said
    changed = {name for name, sign in states(mended).items() if sign == "+"}
    assert changed == {"folders", "environment", "timer", "push"}
    _, found = examined(ann)
    assert found["hook"]["state"] == "ok"
    assert found["folders"]["state"] == found["environment"]["state"] == "ok"


def test_a_small_disk_stops_a_deployment(ann: Developer) -> None:
    ann.on_host(SMALL)
    try:
        code, found = examined(ann)
    finally:
        ann.on_host(f"umount {HOME}")
    assert code == 7
    assert f"MB free on {HOME}" in found["disk"]["what"]


def test_a_git_host_whose_key_has_changed_is_not_trusted(ann: Developer) -> None:
    pins = f"{HOME}/ssh/known_hosts"
    ann.on_host(f"cp -p {pins} /root/pins; ssh-keygen -q -t ed25519 -N '' -f /root/other")
    ann.on_host(f'echo "localhost $(cut -d " " -f 1,2 /root/other.pub)" >{pins}')
    wrong = ann.on_host(f"cat {pins}")
    try:
        ended = ann.fab(*WISH)
        assert ended.code == 7
        assert "has changed: this may be another machine" in ended.out
        assert states(ended)["trust"] == "✗"
        assert ann.on_host(f"cat {pins}") == wrong
    finally:
        ann.on_host(f"mv /root/pins {pins}; rm -f /root/other /root/other.pub")


def test_a_user_who_is_not_root_needs_a_folder_and_no_more(ann: Developer) -> None:
    settings = ann.clone / "invoke.yaml"
    kept = settings.read_text()
    change_settings(settings, {"deploy": {"root": OURS}})
    words = ("-H", "vps-deploy", *(word for word in WISH if word != "--install"))
    try:
        refused = ann._type("fabric", *words)
        assert refused.code == 7
        assert f"install -d -o deploy -m 0755 {OURS}" in refused.out
        ann.on_host(f"install -d -o deploy {OURS}")
        waits = ann._type("fabric", *words)
        assert states(waits)["clone"] == "✗", waits.said
        ann.on_host(f"echo {shlex.quote(public_key(waits))} >>{TRUST}")
        ready = ann._type("fabric", *words)
        assert ready.code == 0, ready.said
        again = ann._type("fabric", *words)
        assert set(states(again).values()) == {"✓"}
        assert ann.on_host(f"find {OURS} ! -user deploy") == ""
    finally:
        settings.write_text(kept)
