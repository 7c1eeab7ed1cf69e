"""Deployments of the agent to the box: good ones, and every kind of bad one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
import yaml

from deploy.report import record as headlines
from sandbox import telegram
from sandbox.bot_api import MASTER, TOKEN
from tests.e2e.conftest import HOME, Developer, Ended, with_approval
from tests.support.agent import eventually

APP = "server_agent_vnext_app"
DATABASE = "server_agent_vnext_postgres"


@dataclass(frozen=True)
class Images:
    """What the names of the image stand for on the host."""

    latest: str
    rollback: str


def images(developer: Developer) -> Images:
    name = "docker image inspect --format '{{.Id}}' server-agent-vnext:"
    found = [developer.on_host(f"{name}{tag}", check=False) for tag in ("latest", "rollback")]
    return Images(*found)


@pytest.fixture(scope="module")
def live(
    developer: Developer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Developer, Ended, Ended]:
    """Two good deployments, one after the other, each with the Master's word."""
    said = tmp_path_factory.mktemp("live") / "said"
    first = with_approval(developer, said)
    assert first.code == 0, first.said
    developer.commit("server_agent/__init__.py", "# v2\n", append=True)
    second = with_approval(developer, said)
    assert second.code == 0, second.said
    return developer, first, second


@pytest.fixture
def ann(live: tuple[Developer, Ended, Ended]) -> Developer:
    return live[0]


def agree(developer: Developer, ended: Ended) -> None:
    """Hold record, log, message and exit code of the newest run to each other."""
    record = developer.document("history", "--limit", "1")[0]
    assert record["code"] == ended.code
    last = developer.on_host(f"tail -n 1 {record['log']}")
    assert last.endswith(f"outcome: {record['outcome']} (exit code {ended.code})")
    message = developer.messages()[-1]
    assert message.splitlines()[0] == headlines.headline(record)
    assert f"SHA: {record['sha'][:7]}" in message
    failed = [step["name"] for step in record["steps"] if step["state"] == "failed"]
    assert len(failed) == (0 if ended.code == 0 else 1)
    for name in failed:
        assert f"Failed step: {name} (exit code {ended.code})" in message
    assert record["notification"] is not None
    assert record["notification"]["sent"]


def test_what_people_type_on_the_host_answers(ann: Developer) -> None:
    assert "uvicorn" in ann.on_host(f"docker logs {APP} 2>&1")
    health = json.loads(ann.on_host("curl -s http://localhost:8000/health"))
    assert health["status"] == "ok"
    assert health["checks"]["telegram"]["status"] == "ok"
    assert health["sha"] == ann.git("rev-parse", "HEAD")
    assert "accepting" in ann.on_host("docker exec server_agent_vnext_postgres pg_isready")
    assert ann.on_host("docker network inspect server_agent_vnext_network --format ok") == "ok"


def test_the_images_have_their_names(live: tuple[Developer, Ended, Ended]) -> None:
    ann = live[0]
    records = [item for item in ann.document("history") if item["code"] == 0]
    second, first = (item for item in records if item["kind"] == "deploy")
    assert images(ann) == Images(second["image"], first["image"])
    running = ann.on_host(f"docker inspect --format '{{{{.Image}}}}' {APP}")
    assert running == second["image"]
    tag = f"server-agent-vnext:{second['sha'][:7]}"
    assert ann.on_host(f"docker image inspect --format '{{{{.Id}}}}' {tag}") == second["image"]


def test_the_image_says_what_it_is_and_runs_as_nobody_special(ann: Developer) -> None:
    text = ann.on_host("docker image inspect server-agent-vnext:latest")
    config = json.loads(text)[0]["Config"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.revision"] == ann.git("rev-parse", "HEAD")
    assert re.fullmatch(r"\d{4}-..-..T..:..:..Z", labels["org.opencontainers.image.created"])
    assert labels["org.opencontainers.image.version"]
    assert config["Healthcheck"]
    assert ann.on_host(f"docker exec {APP} id -u") == "10001"


def test_logs_rotate_and_what_is_inside_is_out_of_reach(ann: Developer) -> None:
    for name in (APP, DATABASE, "server_agent_vnext_engine", "server_agent_vnext_proxy"):
        text = ann.on_host(f"docker inspect --format '{{{{json .HostConfig}}}}' {name}")
        config = json.loads(text)
        assert config["LogConfig"]["Type"] == "json-file"
        assert config["LogConfig"]["Config"] == {"max-file": "5", "max-size": "100m"}
        assert bool(config["PortBindings"]) is name.endswith("_proxy")
    networks = "docker inspect --format '{{json .NetworkSettings.Networks}}' "
    for name in (DATABASE, "server_agent_vnext_engine"):
        found = json.loads(ann.on_host(f"{networks} {name}"))
        assert list(found) == ["server_agent_vnext_internal"]
    inner = "docker network inspect --format '{{.Internal}}' server_agent_vnext_internal"
    assert ann.on_host(inner) == "true"


def test_what_is_private_is_private(ann: Developer) -> None:
    modes = dict(
        line.split()[::-1]
        for line in ann.on_host(f"cd {HOME} && stat -c '%a %n' .env backups backups/*").splitlines()
    )
    assert modes.pop(".env") == "600"
    assert modes.pop("backups") == "700"
    assert modes
    assert set(modes.values()) == {"600"}


def test_a_good_deployment_is_told_alike_everywhere(live: tuple[Developer, Ended, Ended]) -> None:
    ann, first, second = live
    records = [item for item in reversed(ann.document("history")) if item["kind"] == "deploy"]
    for record, ended in zip(records, (first, second), strict=False):
        assert (record["code"], ended.code) == (0, 0)
        assert record["tests"]["passed"] > 0
        assert record["tests"]["coverage"] >= 20
        assert record["migrations"]["after"] == ["0003"]
        states = {step["name"]: step["state"] for step in record["steps"]}
        assert set(states.values()) <= {"ok", "skipped"}
        assert "✅ DEPLOYMENT SUCCESSFUL ✅" in "\n".join(ann.messages())
    assert records[0]["migrations"]["before"] == []
    assert records[1]["previous"] == records[0]["release"]


def test_the_master_is_heard_by_the_pipeline_until_there_is_an_agent(
    live: tuple[Developer, Ended, Ended],
) -> None:
    ann, first, second = live
    assert "approved, heard by the pipeline" in first.said
    assert "approved, heard by the application" in second.said
    newest = [item for item in ann.document("history") if item["kind"] == "deploy"]
    for record in newest[:2]:
        assert record["approval"]["decision"] == "approved"
        order = [step["name"] for step in record["steps"]]
        assert order[order.index("approve") + 1] == "migrate"
    url = ann.environment["TELEGRAM_API_BASE"]
    texts = [item["text"] for item in telegram.control(url, "messages") if item.get("text")]
    closed = [text for text in texts if "🔔 Deploy" in text and "✅ Approved." in text]
    assert len(closed) >= 2
    (asked,) = [text for text in texts if "Commits since then: 1" in text and "/approve" in text]
    assert "change server_agent/__init__.py" in asked
    assert "Pending migrations: none" in asked
    table = "select kind, state from approvals order by id"
    query = f"docker exec {DATABASE} psql -U server_agent -qtAc '{table}' server_agent"
    assert ann.on_host(query) == "deployment|approved"


def test_the_application_reads_what_was_deployed_and_writes_its_logs(
    live: tuple[Developer, Ended, Ended],
) -> None:
    ann, _, second = live
    told = json.loads(ann.on_host(f"docker exec {APP} cat /app/facts/history.json"))
    assert [item["outcome"] for item in told[:2]] == ["success", "success"]
    assert told[0]["sha"] == ann.git("rev-parse", "HEAD")
    saved = json.loads(ann.on_host(f"docker exec {APP} cat /app/facts/backup.json"))
    assert saved["name"] == ann.document("status")["backup"]["name"]
    assert ann.on_host(f"docker exec {APP} touch /app/facts/x", check=False) == ""
    assert ann.on_host(f"ls {HOME}/public").split() == ["backup.json", "history.json"]
    for name in ("app", "telegram", "reactive", "proactive"):
        assert ann.on_host(f"readlink {HOME}/logs/{name}.log") == f"app/{name}.log"
    lines = ann.inv("logs", "telegram.log", "--lines", "1").out
    assert json.loads(lines)["message"]
    nothing = ann.inv("logs", "proactive.log", "--lines", "0")
    assert (nothing.code, nothing.out) == (0, "")
    assert "budget: the smoke tests spent 0 tokens" in second.said


def test_one_message_a_run(ann: Developer) -> None:
    runs = [item for item in ann.document("history") if item["kind"] != "backup"]
    pipeline = [text for text in ann.messages() if "SHA:" in text]
    assert len(pipeline) == len(runs)


@contextmanager
def unchanged(developer: Developer) -> Iterator[None]:
    """Hold a block to leaving the live release and the names of its images alone."""
    before = developer.live(), images(developer)
    assert before[0]
    yield
    assert (developer.live(), images(developer)) == before
    names = developer.on_host("docker ps --format '{{.Names}}'").split()
    apps = [name for name in names if name.startswith(APP)]
    assert apps == [APP]


BAD = {
    "build": ("Dockerfile", "\nRUN exit 3\n", 2, "build"),
    "test image": ("requirements/agent-test.txt", "\nnonsense==1\n", 2, "test"),
    "tests": ("tests/unit/test_bad.py", "def test_bad() -> None:\n    assert 0\n", 1, "test"),
    "health": ("Dockerfile", '\nCMD ["sleep", "600"]\n', 3, "health"),
    "crash": ("Dockerfile", '\nCMD ["sh", "-c", "echo it broke; exit 9"]\n', 3, "health"),
}


@pytest.mark.parametrize("kind", sorted(BAD))
def test_a_bad_release_changes_nothing(ann: Developer, kind: str) -> None:
    name, text, code, step = BAD[kind]
    with unchanged(ann):
        ann.commit(name, text, append=(ann.clone / name).exists())
        ended = ann.inv("deploy")
        ann.back()
    assert ended.code == code, ended.said
    record = ann.document("report")
    assert [item["name"] for item in record["steps"] if item["state"] == "failed"] == [step]
    assert ann.messages()[-1].startswith("❌ DEPLOYMENT FAILED ❌\n")
    agree(ann, ended)
    assert "Traceback" not in ended.err.replace("Traceback (most recent call last):\n  | ", "")
    if kind == "crash":
        assert "it broke" in ended.err
        assert "exit code 9" in ended.err


def test_two_bad_releases_in_a_row_leave_the_rollback_alone(ann: Developer) -> None:
    with unchanged(ann):
        for _ in range(2):
            ann.commit("Dockerfile", '\nCMD ["sleep", "600"]\n', append=True)
            assert ann.inv("deploy", STARTUP_WAIT="2").code == 3
        ann.back()
        ann.back()


def test_too_little_coverage_changes_nothing(ann: Developer) -> None:
    with unchanged(ann):
        ended = ann.inv("deploy", COVERAGE_THRESHOLD="99.9")
    assert ended.code == 1
    assert "the threshold is 99.9 %" in ended.err
    agree(ann, ended)


def test_a_bad_migration_changes_nothing(ann: Developer) -> None:
    text = (
        'revision = "0004"\ndown_revision = "0003"\n\n\ndef upgrade() -> None:\n'
        '    raise RuntimeError("no such luck")\n'
    )
    with unchanged(ann):
        ann.commit("migrations/versions/0004_bad.py", text)
        ended = ann.inv("deploy")
        ann.back()
    assert ended.code == 3
    assert "no such luck" in ended.err
    assert ann.document("report")["migrations"] == {"before": ["0003"], "after": ["0003"]}
    agree(ann, ended)


def settings(ann: Developer, section: str, **values: object) -> None:
    path = ann.clone / "invoke.yaml"
    data = yaml.safe_load(path.read_text())
    data[section] = {**data.get(section, {}), **values}
    ann.commit("invoke.yaml", yaml.safe_dump(data))


def test_failed_smoke_tests_roll_back(ann: Developer) -> None:
    check = {"name": "miracle", "path": "/health", "field": "miracle", "one_of": ["yes"]}
    with unchanged(ann):
        settings(ann, "smoke", checks=[check], retry_seconds=0)
        ended = ann.inv("deploy")
        ann.back()
    assert ended.code == 4, ended.said
    assert "miracle is None" in ended.err
    agree(ann, ended)


LOST = """
    @app.middleware("http")
    async def lost(request: Request, call_next: Any) -> Any:
        if "x-forwarded-for" in request.headers:
            return JSONResponse({"status": "lost behind a proxy"}, status_code=500)
        return await call_next(request)

    @app.get("/health","""


def test_smoke_tests_that_fail_after_the_switch_roll_back(ann: Developer) -> None:
    text = (ann.clone / "server_agent/app.py").read_text()
    broken = text.replace('\n    @app.get("/health",', LOST)
    assert broken != text
    with unchanged(ann):
        ann.commit("server_agent/app.py", broken)
        ended = ann.inv("deploy", COVERAGE_THRESHOLD="10")
        ann.back()
    assert ended.code == 4, ended.said
    assert "lost behind a proxy" in ended.err
    record = ann.document("report")
    assert [item["name"] for item in record["steps"] if item["state"] == "failed"] == ["verify"]
    agree(ann, ended)


def test_a_failed_backup_warns_and_goes_on(ann: Developer) -> None:
    folder = f"{HOME}/backups"
    ann.on_host(f"mount -t tmpfs -o size=16k,mode=0700 tmpfs {folder}")
    try:
        ended = ann.inv("deploy")
    finally:
        ann.on_host(f"umount {folder}")
    assert ended.code == 0, ended.said
    record = ann.document("report")
    assert record["backup"]["state"] == "failed"
    assert ann.messages()[-1].startswith("⚠️ WARNING ⚠️\n")
    agree(ann, ended)


def test_uncommitted_changes_are_told_and_not_deployed(ann: Developer) -> None:
    path = ann.clone / "server_agent/__init__.py"
    text = path.read_text()
    path.write_text(text + "raise RuntimeError('not committed')\n")
    ended = ann.inv("deploy")
    path.write_text(text)
    assert ended.code == 0, ended.said
    assert "uncommitted changes are not deployed: server_agent/__init__.py" in ended.err


def test_the_master_is_answered_through_the_front_door(ann: Developer) -> None:
    secret = ann.on_host(f"sed -n \"s/^TELEGRAM_WEBHOOK_SECRET='\\(.*\\)'/\\1/p\" {HOME}/.env")
    assert len(secret) >= 20
    body = json.dumps({"update_id": 99, "message": {"chat": {"id": int(MASTER)}, "text": "/help"}})
    ann.on_host(
        f"curl -sf -H 'X-Telegram-Bot-Api-Secret-Token: {secret}' -H 'Content-Type:"
        f" application/json' -d '{body}' http://localhost:8000/webhook/telegram"
    )
    eventually(lambda: any(text.startswith("I look after") for text in ann.messages()))


def test_a_press_comes_by_the_webhook_too(ann: Developer, said: Path) -> None:
    url = ann.environment["TELEGRAM_API_BASE"]
    door = "http://127.0.0.1:8000"  # the Bot API shares the box's network
    ann.on_host(f"sed -i 's|^PUBLIC_URL=.*|PUBLIC_URL={door}|' {HOME}/.env")
    assert ann.inv("deploy").code == 0
    eventually(lambda: webhook(url) == f"{door}/webhook/telegram")
    ended = with_approval(ann, said)
    assert ended.code == 0, ended.said
    assert "approved, heard by the application" in ended.said
    assert webhook(url) == f"{door}/webhook/telegram"
    ann.on_host(f"sed -i 's|^PUBLIC_URL=.*|PUBLIC_URL=|' {HOME}/.env")
    assert ann.inv("deploy").code == 0
    eventually(lambda: webhook(url) == "")


def webhook(url: str) -> str:
    """Return where the Bot API sends updates, nothing when it is asked for them."""
    answer = requests.get(f"{url}/bot{TOKEN}/getWebhookInfo", timeout=10).json()
    return str(answer["result"]["url"])


def test_a_bot_that_cannot_be_reached_is_said_and_its_token_is_not(ann: Developer) -> None:
    dead = ann.inv("deploy", TELEGRAM_API_BASE="http://127.0.0.1:9", COVERAGE_THRESHOLD="99.9")
    assert dead.code == 1
    assert "the Master could not be told" in dead.err
    assert TOKEN not in dead.said + ann.on_host(f"cat {HOME}/logs/*.log {HOME}/records/*")


def test_the_lock_is_free_in_the_end(ann: Developer) -> None:
    assert ann.document("status")["lock"] is None
    assert ann.inv("unlock").out == "The lock is free.\n"
