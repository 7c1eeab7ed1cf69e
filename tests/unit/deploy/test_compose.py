"""An application's compose file, rendered for one release."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from deploy import health, traffic
from deploy.docker import compose, engine, proxy, render
from deploy.docker.compose import Place
from deploy.outcome import Invalid
from deploy.settings import App, Deploy, Migrate, Proxy, Settings, Webhook

PLACE = Place("20260101-000000-abc1234", "/r/source", "/r/env", "/r/compose.yml", "shop:abc1234")
APPLICATION = """
name: shop
services:
  web:
    build: .
    container_name: shop_web
    ports: ["8000:8000"]
    depends_on: [db]
    env_file: .env
    labels: ["a=b"]
    networks: [inner]
  worker:
    build: .
    command: [work]
  db:
    image: postgres:15-bookworm
    volumes: [data:/var/lib/postgresql/data]
    networks: [inner]
networks:
  inner: {internal: true}
volumes:
  data:
"""


def settings(**app: Any) -> Settings:
    return Settings(
        deploy=Deploy(project="shop", title="Shop", root="/srv/shop"),
        app=App(**{"services": ("web", "worker"), "accessories": ("db",), **app}),
        proxy=Proxy(container="shop_proxy", network="shop_network", port=8100),
    )


def rendered(text: str = APPLICATION, **app: Any) -> dict[str, Any]:
    data = render.parse(text, "compose.yml")
    door = proxy.service(settings(), "/srv/shop/proxy", "127.0.0.1", migrates=True)
    found: dict[str, Any] = yaml.safe_load(render.render(data, settings(**app), PLACE, door))
    return found


def test_a_release_stands_beside_the_others() -> None:
    services = rendered()["services"]
    assert set(services) == {
        "web-20260101-000000-abc1234",
        "worker-20260101-000000-abc1234",
        "db",
        "deploy-proxy",
    }
    web = services["web-20260101-000000-abc1234"]
    assert web["container_name"] == "shop_web_20260101-000000-abc1234"
    assert web["image"] == "shop:abc1234"
    assert not {"build", "ports", "depends_on"} & set(web)


def test_what_two_releases_cannot_share_is_gone_and_the_rest_stays() -> None:
    found = rendered()
    assert found["services"]["db"]["volumes"] == ["data:/var/lib/postgresql/data"]
    assert found["networks"]["inner"] == {"internal": True}
    assert "data" in found["volumes"]
    assert "name" not in found


def test_containers_say_whose_they_are() -> None:
    labels = rendered()["services"]["web-20260101-000000-abc1234"]["labels"]
    assert labels == {
        "a": "b",
        engine.RESTART_LABEL: "always",
        engine.PROJECT_LABEL: "shop",
        engine.RELEASE_LABEL: PLACE.release,
        engine.SERVICE_LABEL: "web",
        engine.LIVE_NAME_LABEL: "shop_web",
    }


def test_a_service_without_a_name_gets_one() -> None:
    worker = rendered()["services"]["worker-20260101-000000-abc1234"]
    assert worker["labels"][engine.LIVE_NAME_LABEL] == "shop-worker"
    assert worker["container_name"] == "shop-worker_20260101-000000-abc1234"


def test_only_the_first_service_joins_the_front_door() -> None:
    services = rendered()["services"]
    assert services["web-20260101-000000-abc1234"]["networks"] == {
        "inner": None,
        "shop_network": None,
    }
    assert "networks" not in services["worker-20260101-000000-abc1234"]
    assert services["deploy-proxy"]["networks"] == ["shop_network"]


def test_a_network_is_found_by_its_name() -> None:
    text = APPLICATION.replace("inner: {internal: true}", "inner: {name: shop_network}")
    web = rendered(text)["services"]["web-20260101-000000-abc1234"]
    assert web["networks"] == {"inner": None}


def test_a_service_on_no_network_keeps_the_default_one() -> None:
    text = APPLICATION.replace("    networks: [inner]\n  worker", "  worker")
    web = rendered(text)["services"]["web-20260101-000000-abc1234"]
    assert web["networks"] == {"default": None, "shop_network": None}


def test_the_environment_of_the_release_stands_in_for_the_file() -> None:
    assert rendered()["services"]["web-20260101-000000-abc1234"]["env_file"] == ["/r/env"]


def test_a_service_with_an_image_of_its_own_keeps_it() -> None:
    text = APPLICATION.replace("build: .\n    command: [work]", "image: redis:7")
    worker = rendered(text)["services"]["worker-20260101-000000-abc1234"]
    assert worker["image"] == "redis:7"
    assert "pull_policy" not in worker


@pytest.mark.parametrize("app", [{"services": ("web", "wroker")}, {"accessories": ("redis",)}])
def test_a_service_that_is_not_there_is_named(app: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match=r"wroker|redis") as caught:
        rendered(**app)
    assert "web" in caught.value.next_step


@pytest.mark.parametrize("text", ["", "[]", "services: 3", "services: {web: 1}", "a: [", "a: b"])
def test_what_is_no_compose_file_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        render.parse(text, "compose.yml")


@pytest.mark.parametrize(("text", "says"), [("", "has no compose file"), ("a: b", "no services")])
def test_a_file_that_is_not_there_says_what_names_it(text: str, says: str) -> None:
    with pytest.raises(Invalid, match=says) as caught:
        render.parse(text, "compose.yml")
    assert caught.value.where == "compose.yml"
    assert "invoke.yaml" in caught.value.next_step


def test_commands_name_the_one_project() -> None:
    argv = compose.up_release(settings(), PLACE).argv
    assert argv[2:6] == ("DEPLOY_ROOT=/srv/shop", "docker", "compose", "--project-name")
    assert argv[-2:] == ("web-20260101-000000-abc1234", "worker-20260101-000000-abc1234")
    accessories = compose.up_accessories(settings(), PLACE, ["db"]).argv
    assert accessories[-4:] == ("--detach", "--no-deps", "--no-recreate", "db")


def test_no_command_tells_to_remove_the_releases_beside() -> None:
    tests = compose.test_words("shop-test", "/r", "/t.yml", ("TOKEN", "KEY"), "up", deadline=30)
    assert tests.argv[:5] == ("env", "-u", "TOKEN", "-u", "KEY")
    for what in (compose.up_release(settings(), PLACE), compose.check(settings(), PLACE), tests):
        assert what.argv[what.argv.index("docker") - 1].startswith(("COMPOSE_", "DEPLOY_ROOT="))
        assert "COMPOSE_IGNORE_ORPHANS=1" in what.argv
        assert what.called().startswith("docker compose ")


def test_the_front_door_listens_where_it_is_told() -> None:
    assert proxy.service(settings(), "/p", "127.0.0.1", migrates=True)["ports"] == [
        "127.0.0.1:8100:8100"
    ]
    public = settings().model_copy(
        update={"proxy": Proxy(container="c", network="n", domain="shop.example.org")}
    )
    assert proxy.service(public, "/p", "0.0.0.0", migrates=False)["ports"] == [
        "0.0.0.0:80:80",
        "0.0.0.0:443:443",
    ]
    assert "sysctls" in proxy.service(settings(), "/p", "127.0.0.1", migrates=True)
    assert "sysctls" not in proxy.service(settings(), "/p", "127.0.0.1", migrates=False)
    assert "auto_https" not in proxy.caddyfile(public)
    assert "shop.example.org {" in proxy.caddyfile(public)


@pytest.mark.parametrize(
    ("issuer", "says"),
    [
        ("acme", ""),
        ("internal", "local_certs"),
        ("https://ca.example.org/dir", "acme_ca https://ca.example.org/dir"),
    ],
)
def test_certificates_are_whose_they_shall_be(issuer: str, says: str) -> None:
    door = Proxy(container="c", network="n", domain="shop.example.org", certificates=issuer)
    text = proxy.caddyfile(settings().model_copy(update={"proxy": door}))
    assert says in text
    assert ("acme_ca" in text, "local_certs" in text) == (
        issuer.startswith("https"),
        issuer == "internal",
    )
    assert "Strict-Transport-Security" in text
    assert "Strict-Transport-Security" not in proxy.caddyfile(settings())


@pytest.mark.parametrize("domain", ["", "shop.example.org"])
def test_a_request_has_its_limits(domain: str) -> None:
    door = Proxy(container="c", network="n", domain=domain, max_body_mb=7, max_header_kb=16)
    text = proxy.caddyfile(settings().model_copy(update={"proxy": door}))
    assert "max_size 7000000" in text
    assert "max_header_size 16KB" in text
    assert "read_header 10s" in text


def test_the_front_door_has_no_right_that_it_can_do_without() -> None:
    service = proxy.service(settings(), "/p", "127.0.0.1", migrates=True)
    assert service["cap_drop"] == ["ALL"]
    assert service["cap_add"] == ["NET_BIND_SERVICE"]
    assert service["read_only"]
    assert {"mem_limit", "pids_limit", "cpus"} <= service.keys()


@pytest.mark.parametrize(
    ("domain", "bind", "url", "at"),
    [
        ("", "0.0.0.0", "http://127.0.0.1:8000", ""),
        ("", "10.0.0.4", "http://10.0.0.4:8000", ""),
        ("shop.example.org", "0.0.0.0", "https://shop.example.org", "127.0.0.1"),
        ("shop.example.org", "10.0.0.4", "https://shop.example.org", "10.0.0.4"),
    ],
)
def test_the_host_asks_its_own_front_door(domain: str, bind: str, url: str, at: str) -> None:
    door = Proxy(container="c", network="n", domain=domain, bind=bind)
    found = traffic.inside(settings().model_copy(update={"proxy": door}))
    assert (found.url, found.at) == (url, at)
    argv = health.get(found, "/health", 5).argv
    assert argv[-1] == f"{url}/health"
    assert (f"::{at}:" in argv) == bool(at)
    assert ("--insecure" in argv) == bool(at)


@pytest.mark.parametrize(
    ("text", "domain", "port"),
    [
        (
            "Error starting userland proxy: listen tcp4 0.0.0.0:8100: bind: address already in use",
            "",
            8100,
        ),
        ("Bind for 127.0.0.1:8100 failed: port is already allocated", "", 8100),
        (
            "failed to bind host port for 0.0.0.0:443:172.18.0.2:443/tcp: address already in use",
            "a.b",
            443,
        ),
        ("failed to bind host port 0.0.0.0:80/tcp: address already in use", "a.b", 80),
        ("listen tcp4 0.0.0.0:8100: bind: address already in use", "a.b", None),
        ("listen tcp4 0.0.0.0:8100: bind: permission denied", "", None),
        ('The container name "/shop_proxy" is already in use', "", None),
        ("", "", None),
    ],
)
def test_a_port_that_is_taken_is_found(text: str, domain: str, port: int | None) -> None:
    given = Proxy(container="c", network="n", port=8100, domain=domain)
    assert proxy.taken(text, settings().model_copy(update={"proxy": given})) == port


def test_the_proxy_looks_up_who_is_live_for_each_request() -> None:
    text = proxy.caddyfile(settings())
    assert "root /etc/caddy/live" in text
    assert "map {http.matchers.file.relative} {live_host} {live_port} {" in text
    assert "reverse_proxy {live_host}:{live_port} {" in text
    assert "503" in text


def test_the_proxy_passes_webhooks_on_when_it_is_told_to() -> None:
    assert "socket" not in proxy.caddyfile(settings())
    given = settings().model_copy(update={"webhook": Webhook(path="/hooks/deploy")})
    text = proxy.caddyfile(given)
    assert text.index("handle /hooks/deploy {") < text.index("handle @live {")
    assert "reverse_proxy unix//etc/caddy/listen/socket" in text
    assert proxy.passes(text, "/hooks/deploy")
    assert not proxy.passes(text, "/hooks")
    assert not proxy.passes(proxy.caddyfile(settings()), "/hooks/deploy")


@pytest.mark.parametrize("text", ["/web-1\n", "web-1"])
def test_the_proxy_says_who_it_sends_traffic_to(text: str) -> None:
    assert proxy.upstream(text) == "web-1"
    assert proxy.upstream("") == ""


def test_connections_are_counted_by_the_end_they_go_to() -> None:
    row = "  {}: 0100007F:A{:03d} 040013AC:1F90 {} 00000000:00000000 00:00000000 00000000 0 0 1 1"
    table = "\n".join(
        [
            "  sl  local rem st",
            *(row.format(n, n, st) for n, st in enumerate(("01", "01", "06", "08"))),
        ]
    )
    assert proxy.connected(table, ["172.19.0.4"], 8080) == 2
    assert proxy.connected(table, ["172.19.0.5"], 8080) == 0
    assert proxy.connected(table, ["172.19.0.4"], 8081) == 0
    assert proxy.connected("", ["172.19.0.4"], 8080) == 0


def test_replicas_share_no_name() -> None:
    text = """
services:
  web: {image: x, container_name: shop, deploy: {replicas: 2}}
  worker: {image: x}
"""
    found = rendered(text, accessories=())
    web, worker = (item for name, item in found["services"].items() if name[0] == "w")
    assert "container_name" not in web
    assert engine.LIVE_NAME_LABEL not in web["labels"]
    assert worker["container_name"] == "shop-worker_20260101-000000-abc1234"


def test_a_migration_waits_for_no_lock_longer_than_it_may() -> None:
    migrate = Migrate(command=("alembic", "upgrade", "head"), lock_timeout=2.5, deadline=60)
    found = compose.migration(settings().model_copy(update={"migrate": migrate}), PLACE)
    words = (*("--env", "PGOPTIONS=-c lock_timeout=2500", "--entrypoint", "alembic"),)
    assert found.argv[-7:] == (*words, "web-20260101-000000-abc1234", "upgrade", "head")
    assert found.deadline == 60
