"""invoke.yaml and the environment: all that is wrong is named at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from deploy import settings
from deploy.outcome import Exit, Invalid
from deploy.settings import Settings
from deploy.settings.load import WANTED

ROOT = Path(__file__).resolve().parents[3]
# Names, as those of services and of containers.
PLAIN_PATTERNS = (
    r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
    r"^[A-Za-z0-9_.-]*$",
    r"^[A-Za-z0-9_.]*$",
)
TOKEN = "123456:ABCDEFGHIJ-abcdefghij"
LEAST: dict[str, Any] = {
    "deploy": {"project": "shop", "title": "Shop", "root": "/srv/shop"},
    "proxy": {"container": "shop_proxy", "network": "shop_net"},
}


def parse(change: dict[str, Any], **environ: str) -> Settings:
    data = {key: {**LEAST.get(key, {}), **value} for key, value in {**LEAST, **change}.items()}
    return settings.parse(data, environ, "invoke.yaml")


def problems(data: Any, **environ: str) -> str:
    with pytest.raises(Invalid) as caught:
        settings.parse(data, environ, "invoke.yaml")
    assert caught.value.code == Exit.INVALID
    assert caught.value.where == "invoke.yaml"
    return caught.value.why


def changed(section: str, **values: Any) -> dict[str, Any]:
    return {**LEAST, section: {**LEAST.get(section, {}), **values}}


def test_what_is_left_out_has_a_default() -> None:
    found = parse({})
    assert (found.deploy.host, found.health.startup_wait, found.database.keep_days) == (
        "local",
        10,
        14,
    )


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (changed("proxy", prot=1), "unknown key proxy.prot (did you mean port?)"),
        ({**LEAST, "helth": {}}, "unknown key helth (did you mean health?)"),
        (changed("smoke", checks=[{"name": "a", "pth": "/"}]), "unknown key smoke.checks.0.pth"),
        (changed("app", port="8000"), "app.port"),
        (changed("database", client_image="-v /:/x"), "database.client_image"),
        (
            changed("database", service="postgres", client_image="postgres:17"),
            "service must be empty where client_image is set",
        ),
        (changed("approval", decision_query="select 1"), "withdraw_query go together"),
        (changed("approval", timeout=0), "approval.timeout"),
        (changed("budget", smoke_tokens=-1), "budget.smoke_tokens"),
        (changed("app", log_files=["../x"]), "app.log_files.0"),
        (changed("app", port=0), "app.port"),
        (changed("app", port=True), "app.port"),
        (changed("app", services=[]), "app.services"),
        (changed("app", services="app"), "app.services"),
        (changed("health", startup_wait=float("nan")), "health.startup_wait"),
        (changed("health", startup_wait=float("inf")), "health.startup_wait"),
        (changed("health", startup_wait=-1), "health.startup_wait"),
        (changed("deploy", root="relative"), "deploy.root"),
        (changed("deploy", root="/"), "deploy.root"),
        (changed("deploy", root="/a/../b"), "deploy.root"),
        (changed("deploy", host="-oProxyCommand=x"), "deploy.host"),
        (changed("deploy", project="A b"), "deploy.project"),
        (changed("deploy", compose_file="/etc/passwd"), "deploy.compose_file"),
        (changed("database", keep_days=0), "database.keep_days"),
        (changed("database", copy_to="ssh:-oProxyCommand=id:/x"), "database.copy_to"),
        (changed("database", copy_to="ssh:vault:$(id)"), "database.copy_to"),
        (changed("database", copy_to="ssh:vault"), "database.copy_to"),
        (changed("database", encrypt_to="AGE-SECRET-KEY-1QQQQ"), "database.encrypt_to"),
        (changed("database", encrypt_to="age1" + "b" * 58), "database.encrypt_to"),
        (changed("database", encrypt_to="ssh-rsa AAAAB3NzaC1yc2E"), "database.encrypt_to"),
        (changed("database", copy_to="rclone:--config:x"), "database.copy_to"),
        (changed("database", copy_to="ftp:vault:x"), "database.copy_to"),
        (changed("database", keep_days=36501), "database.keep_days"),
        (changed("database", keep={"daily": -1}), "database.keep.daily"),
        (changed("database", keep={"weekly": 1.5}), "database.keep.weekly"),
        (
            changed("database", keep={"montly": 1}),
            "unknown key database.keep.montly (did you mean monthly?)",
        ),
        (changed("smoke", checks=[{"name": "a", "field": "x"}]), "field and one_of go together"),
        (
            {**changed("webhook", path="/Health"), "app": {"health_path": "/health?deep=1"}},
            "webhook.path must be another than app.health_path",
        ),
        (changed("webhook", path="/health"), "webhook.path must be another than app.health_path"),
        ({"proxy": LEAST["proxy"]}, "deploy is missing"),
        ({**LEAST, "git": None}, "git"),
        (None, "must hold sections"),
        ([], "must hold sections"),
        ("text", "must hold sections"),
    ],
)
def test_what_is_wrong_is_named(data: Any, says: str) -> None:
    assert says in problems(data)


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"COVERAGE_THRESHOLD": "many"}, "COVERAGE_THRESHOLD must be a number"),
        ({"COVERAGE_THRESHOLD": "101"}, "tests.coverage_threshold"),
        ({"COVERAGE_THRESHOLD": "nan"}, "tests.coverage_threshold"),
        ({"STARTUP_WAIT": "0"}, "health.startup_wait"),
        ({"TELEGRAM_API_TOKEN": "hello", "MASTER_CHAT_ID": "1"}, "TELEGRAM_API_TOKEN"),
        ({"TELEGRAM_API_TOKEN": TOKEN}, "MASTER_CHAT_ID"),
        ({"TELEGRAM_API_BASE": "ftp://x"}, "TELEGRAM_API_BASE"),
        ({"DATABASE_URL": "mysql://u:p@h/d"}, "DATABASE_URL"),
        ({"DATABASE_URL": "postgresql://u:p@h:port/d"}, "DATABASE_URL"),
        ({"DATABASE_URL": "postgresql://u:p@h/d\nX=1"}, "DATABASE_URL"),
    ],
)
def test_what_is_wrong_in_the_environment_is_named(environ: dict[str, str], says: str) -> None:
    assert says in problems(LEAST, **environ)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (changed("database", encrypt_to="age1x"), "database.encrypt_to must be a public key"),
        (changed("database", schedule="25:00"), "a time of day in UTC such as 03:30, not '25:00'"),
        (changed("deploy", root="srv"), "deploy.root must be a whole path"),
        (changed("app", services=["a b"]), "app.services.0 must be a plain word of letters"),
    ],
)
def test_what_is_wanted_is_said_in_words(data: Any, says: str) -> None:
    told = problems(data)
    assert says in told
    assert "pattern" not in told


@pytest.mark.parametrize(
    "name",
    [
        *("refs/heads/main", "heads/main", "origin/main", "refs/remotes/origin/main"),
        *("refs/tags/v1", "tags/v1", "HEAD", "@", "-x", "a..b", "a b", "a~b", "a^", "a:b", "a?"),
        *("a*", "a[b", "a\\b", "a@{1}", "/a", "a/", "a//b", ".a", "a/.b", "a.", "a.lock", ""),
        *("a\x7f", "a" * 201),
    ],
)
def test_what_is_no_plain_name_of_a_branch_is_refused(name: str) -> None:
    assert "git.branch" in problems(changed("git", branch=name))


@pytest.mark.parametrize("name", ["main", "feature/a-b_c", "a;b", "$(id)", "a@b", "日本", "v1.2"])
def test_what_git_takes_for_a_branch_may_be_deployed(name: str) -> None:
    assert parse({"git": {"branch": name}}).git.branch == name


def patterned(model: type[BaseModel]) -> set[str]:
    """Return the keys of a section whose values have a pattern of their own, by its schema."""
    parts = model.model_json_schema()["$defs"].values()
    return {
        key
        for part in parts
        for key, value in part["properties"].items()
        if value.get("pattern") and value["pattern"] not in PLAIN_PATTERNS
    }


def test_every_pattern_has_its_words() -> None:
    assert patterned(Settings) == set(WANTED)


@pytest.mark.parametrize("key", ["encrypt_to", "copy_to", "service", "keep_days"])
@pytest.mark.parametrize(
    "secret",
    ["AGE-SECRET-KEY-1QQQQ", "age-secret-key-1qqqq", "-----BEGIN OPENSSH PRIVATE KEY-----\nQQQQ"],
)
def test_a_private_key_is_not_shown(key: str, secret: str) -> None:
    told = problems(changed("database", **{key: f"{secret} $"}))
    assert "qqqq" not in told.lower()
    assert f"database.{key} holds a private key" in told


def test_everything_is_named_at_once_and_no_secret_with_it() -> None:
    told = problems(
        {**changed("app", port=0), "helth": {}},
        COVERAGE_THRESHOLD="x",
        DATABASE_URL="mysql://u:hunter22@h/d",
        TELEGRAM_API_TOKEN="not-a-token-but-secret",
    )
    for part in ("app.port", "helth", "COVERAGE_THRESHOLD", "DATABASE_URL", "TELEGRAM_API_TOKEN"):
        assert part in told
    assert "hunter22" not in told
    assert "not-a-token" not in told


def test_the_environment_goes_before_the_file() -> None:
    found = parse({"tests": {"coverage_threshold": 50}}, COVERAGE_THRESHOLD="80", STARTUP_WAIT="3")
    assert (found.tests.coverage_threshold, found.health.startup_wait) == (80, 3)


def test_only_named_variables_are_passed_on() -> None:
    found = parse({"deploy": {"pass_env": ["A", "B"]}}, A="secret-a", C="c")
    assert {key: value.get_secret_value() for key, value in found.environment.passed.items()} == {
        "A": "secret-a"
    }
    assert "secret-a" not in repr(found)
    assert "secret-a" not in str(found)


def test_invokes_own_keys_are_left_alone() -> None:
    settings.parse({**LEAST, "run": {"echo": True}, "tasks": {}}, {}, "invoke.yaml")


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*Settings.model_fields, "host", "port", "checks", "root"]) | st.text(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(TREES, st.dictionaries(st.sampled_from(["STARTUP_WAIT", "DATABASE_URL"]), st.text()))
def test_whatever_stands_in_the_file_nothing_but_invalid_comes_of_it(
    data: Any, environ: dict[str, str]
) -> None:
    with pytest.raises(Invalid):
        settings.parse(data, environ, "invoke.yaml")


def test_the_file_of_this_project_holds_every_key() -> None:
    data = yaml.safe_load((ROOT / "invoke.yaml").read_text())
    found = settings.parse(data, {}, "invoke.yaml")
    for name in Settings.model_fields:
        if name != "environment":
            assert_complete(data[name], getattr(found, name), name)


def assert_complete(data: dict[str, Any], section: BaseModel, name: str) -> None:
    assert set(data) == set(type(section).model_fields), name
    for key, value in section:
        if isinstance(value, BaseModel):
            assert_complete(data[key], value, f"{name}.{key}")


@pytest.mark.parametrize(
    "text",
    ["a: [", "\t- x", "a: b: c", '"', "a: !!python/none x\n", "&a {x: *a}", "&a [*a]", "[" * 1000],
    ids=range(8),
)
def test_what_is_no_yaml_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "invoke.yaml").write_text(text)
    with pytest.raises(Invalid, match=r"invoke.yaml cannot be read"):
        settings.load(tmp_path, {})


@pytest.mark.parametrize("text", ["- a", "3", "", "\x00\x01"])
def test_what_holds_no_sections_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "invoke.yaml").write_text(text)
    with pytest.raises(Invalid) as caught:
        settings.load(tmp_path, {})
    assert "invoke.yaml" in str(caught.value.where)


def test_without_a_file_the_cure_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"no invoke.yaml") as caught:
        settings.load(tmp_path, {})
    assert caught.value.next_step == "git checkout -- invoke.yaml"


def test_a_dotenv_file_stands_in_for_the_environment(tmp_path: Path) -> None:
    (tmp_path / "invoke.yaml").write_text(yaml.safe_dump(LEAST))
    (tmp_path / ".env").write_text(f"TELEGRAM_API_TOKEN={TOKEN}\nMASTER_CHAT_ID=1\n")
    found = settings.load(tmp_path, {"MASTER_CHAT_ID": "2"})
    assert found.environment.telegram_token.get_secret_value() == TOKEN
    assert found.environment.master_chat_id == "2"
