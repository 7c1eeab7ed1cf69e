"""The front door, with a real engine: what happens when its port is somebody else's."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploy.host import Host
from deploy.host.process import CommandFailed
from deploy.outcome import DeployFailed, Invalid
from deploy.releases import Release
from deploy.run import Caller, Run
from deploy.settings import App, Deploy, Proxy, Settings
from deploy.steps import services
from tests.support.agent import eventually
from tests.support.container import docker
from tests.support.ports import free_port

COMPOSE = "services:\n  web:\n    image: caddy:2\n"
Make = Callable[..., Run]


@pytest.fixture
def make(here: Host, tmp_path: Path) -> Iterator[Make]:
    """Make a run whose code is fetched, up to the services."""
    name = f"deploy-test-{uuid.uuid4().hex[:8]}"

    def run_of(release: str, port: int, image: str = "caddy:2") -> Run:
        settings = Settings(
            deploy=Deploy(project=name, title="Shop", root=str(tmp_path)),
            app=App(services=("web",)),
            proxy=Proxy(container=name, network=name, port=port, image=image),
        )
        caller, now = Caller("ann", "laptop", "inv"), datetime.now(UTC)
        run = Run("deploy", settings, tmp_path, here, here, here.log, caller, now)
        run.release = Release(release, "a" * 40, "main", "caddy:2", now.isoformat())
        source = Path(run.layout.place(release, "caddy:2").source)
        source.mkdir(parents=True)
        (source / "docker-compose.yml").write_text(COMPOSE)
        Path(run.layout.live).mkdir(parents=True, exist_ok=True)
        Path(run.layout.proxy).chmod(0o755)
        return run

    yield run_of
    for item in (name, *containers(name)):
        docker("rm", "--force", "--volumes", item, check=False)
    for network in (name, f"{name}_default"):
        docker("network", "rm", network, check=False)
    docker("volume", "rm", f"{name}_deploy-proxy-data", check=False)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program has."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@pytest.fixture
def free() -> int:
    return free_port()


def answers(port: int) -> bool:
    """Tell whether a front door answers there, with no release behind it."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)
    except urllib.error.HTTPError as error:
        return b"no release is live yet" in error.read()
    except OSError:
        return False
    return False


def containers(project: str, service: str = "") -> list[str]:
    """Return the containers of a compose project, or of one of its services."""
    owner = "label=com.docker.compose"
    of = ("--filter", f"{owner}.service={service}") if service else ()
    return docker("ps", "--all", "--quiet", "--filter", f"{owner}.project={project}", *of).split()


def state(run: Run) -> str:
    name = f"name=^/{run.settings.proxy.container}$"
    return docker("ps", "--all", "--filter", name, "--format", "{{.State}}").strip()


def modes(root: Path) -> dict[str, int]:
    names = ("public", "logs", "logs/app")
    return {name: (root / name).stat().st_mode & 0o7777 for name in names}


def test_containers_may_write_their_logs_and_nothing_of_ours(make: Make, free: int) -> None:
    run = make("r1", free)
    app = run.settings.app.model_copy(update={"log_files": ("app", "web")})
    run.settings = run.settings.model_copy(update={"app": app})
    logs = Path(run.layout.logs)
    logs.mkdir(mode=0o777)
    logs.chmod(0o777)
    (logs / "web.log").write_text("of somebody else")
    for _ in range(2):
        services.provide(run)
        assert modes(Path(run.layout.root)) == {"public": 0o755, "logs": 0o700, "logs/app": 0o1777}
    assert (logs / "app.log").readlink() == Path("app/app.log")
    assert (logs / "web.log").read_text() == "of somebody else"
    write = "echo a line >/x/app.log && ! touch /x/../deployment.log"
    mount = f"{run.layout.app_logs}:/x"
    words = ("--user", "10001", "--entrypoint", "sh", "--volume", mount, "caddy:2", "-c", write)
    docker("run", "--rm", *words)
    assert (logs / "app.log").read_text() == "a line\n"


def test_what_is_in_the_way_of_a_shared_folder_is_named(make: Make, free: int) -> None:
    run = make("r1", free)
    Path(run.layout.public).write_text("in the way")
    with pytest.raises(Invalid, match="cannot be made") as caught:
        services.provide(run)
    assert run.layout.public in caught.value.where
    assert "File exists" in caught.value.why
    assert state(run) == ""


def test_a_port_that_another_program_has_is_named_and_nothing_is_left(
    make: Make, taken: int
) -> None:
    run = make("r1", taken)
    with pytest.raises(DeployFailed, match=f"Port {taken} is taken") as caught:
        services.provide(run)
    assert caught.value.where == f"local, 127.0.0.1:{taken}"
    assert f"ss -ltnp 'sport = :{taken}'" in caught.value.next_step
    assert len(caught.value.why.splitlines()) == 1
    assert state(run) == ""


def test_a_port_that_another_container_has_is_named_too(make: Make, free: int) -> None:
    run = make("r1", free)
    name = f"{run.settings.proxy.container}-other"
    docker("run", "--detach", "--name", name, "--publish", f"127.0.0.1:{free}:80", "caddy:2")
    try:
        with pytest.raises(DeployFailed, match=f"Port {free} is taken"):
            services.provide(run)
    finally:
        docker("rm", "--force", "--volumes", name)
    assert state(run) == ""


def test_the_door_before_stays_open_when_the_new_port_is_taken(
    make: Make, free: int, taken: int
) -> None:
    first = make("r1", free)
    services.provide(first)
    eventually(lambda: answers(free))
    second = make("r2", taken)
    second.previous = first.release
    with pytest.raises(DeployFailed, match=f"Port {taken} is taken"):
        services.provide(second)
    eventually(lambda: answers(free))


def test_another_failure_is_told_as_it_is(make: Make, free: int) -> None:
    with pytest.raises(CommandFailed, match="local cannot get an image") as caught:
        services.provide(make("r1", free, "localhost:1/no-such-image:1"))
    assert "localhost:1" in caught.value.why


def with_accessory(run: Run, compose: str) -> Run:
    """Let the commit of a run have this compose file, of which `store` is an accessory."""
    app = run.settings.app.model_copy(update={"accessories": ("store",)})
    run.settings = run.settings.model_copy(update={"app": app})
    source = Path(run.layout.place(run.release.id, "").source)
    (source / "docker-compose.yml").write_text(compose)
    (source / "more.yml").write_text("services: {other: {image: caddy:2}}")
    return run


STORE = f"{COMPOSE}  store:\n    image: caddy:2\n"


@pytest.mark.parametrize(
    "changed",
    [
        f"{STORE}    deploy: {{replicas: 2}}\n    volumes: ['/:/host']\n",
        f"{STORE}    scale: 2\n    privileged: true\n",
        f"include: [more.yml]\n{STORE}    depends_on: [other]\n",
        f"include: [more.yml]\n{STORE}    network_mode: service:other\n",
    ],
)
def test_of_an_accessory_that_is_there_a_commit_changes_nothing(
    make: Make, free: int, changed: str
) -> None:
    first = with_accessory(make("r1", free), STORE)
    project = first.settings.deploy.project
    services.provide(first)
    (store,) = containers(project, "store")
    before = set(containers(project))
    docker("stop", "--time", "0", store)
    services.provide(with_accessory(make("r2", free), changed))
    assert set(containers(project)) == before
    assert docker("inspect", "--format", "{{.State.Status}}", store).strip() == "running"


def test_an_accessory_brings_nothing_along_that_is_none(make: Make, free: int) -> None:
    run = with_accessory(make("r1", free), f"include: [more.yml]\n{STORE}    depends_on: [other]\n")
    services.provide(run)
    assert len(containers(run.settings.deploy.project, "store")) == 1
    assert not containers(run.settings.deploy.project, "other")


@pytest.mark.parametrize("name", ["docker-compose.yml", ".env.example"])
def test_a_link_out_of_the_commit_is_not_followed(
    make: Make, free: int, tmp_path: Path, name: str
) -> None:
    run = make("r1", free)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("A_SECRET=of-another-program\n")
    link = Path(run.layout.place("r1", "").source, name)
    link.unlink(missing_ok=True)
    link.symlink_to(elsewhere)
    with pytest.raises(Invalid, match="leads out of the commit's files"):
        services.provide(run)
    assert not Path(run.layout.env_file).exists()
    assert state(run) == ""
