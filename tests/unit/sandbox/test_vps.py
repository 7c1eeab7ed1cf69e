"""The pure parts of a box: names, texts and arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.box import Box
from sandbox.contents import push_environment
from sandbox.vps import address, container, keys

FOLDER = Path("/a b/50%/.sandbox")


def test_ssh_config_names_both_users_and_trusts_only_the_pinned_key() -> None:
    text = keys.ssh_config(FOLDER, "127.0.0.7")
    root, deploy = text.split("\n\n")
    assert root.startswith("Host vps\n")
    assert deploy.startswith("Host vps-deploy\n")
    assert "    User root\n" in root
    assert "    User deploy\n" in deploy
    for entry in (root, deploy):
        assert "    HostName 127.0.0.7\n" in entry
        assert "    Port 2222\n" in entry
        assert "    StrictHostKeyChecking yes\n" in entry
        assert "    IdentitiesOnly yes\n" in entry
        assert '    IdentityFile "/a b/50%%/.sandbox/key"\n' in entry
        assert '    UserKnownHostsFile "/a b/50%%/.sandbox/known_hosts"\n' in entry


def test_the_pin_names_address_and_port() -> None:
    line = keys.known_hosts("127.0.0.7", "ssh-ed25519 AAAA vps\n")
    assert line == "[127.0.0.7]:2222 ssh-ed25519 AAAA\n"


def test_addresses_stay_on_loopback_and_are_all_tried_once() -> None:
    tried = list(address.candidates(0xFFFFFFFF, ()))
    assert len(tried) == len(set(tried)) == 249
    assert "127.0.0.1" not in tried
    assert {int(one.rsplit(".", 1)[1]) for one in tried} == set(range(2, 251))


def test_another_boxs_address_is_left_alone() -> None:
    assert list(address.candidates(0, ("127.0.0.2",)))[0] == "127.0.0.3"  # noqa: RUF015


def test_two_checkouts_have_two_boxes() -> None:
    one, other = container.name_of(Path("/a/.sandbox")), container.name_of(Path("/b/.sandbox"))
    assert one != other
    assert one == container.name_of(Path("/a/x/../.sandbox"))
    assert one.startswith("server-agent-vps-")


@pytest.mark.parametrize(
    ("status", "names"),
    [
        ("Name:\tdockerd\nCapEff:\t0000000000000003\n", ["CHOWN", "DAC_OVERRIDE"]),
        ("CapEff:\t0000000000000000\n", []),
        ("CapPrm:\t0000000000000003\n", []),
        ("", []),
    ],
)
def test_capabilities_are_read_from_a_status_file(status: str, names: list[str]) -> None:
    assert container.capabilities_in(status) == names


def test_every_bit_has_its_name() -> None:
    full = container.capabilities_in("CapEff:\t000001ffffffffff\n")
    assert len(full) == 41
    lacking = container.capabilities_in("CapEff:\t000001fffeffffff\n")
    assert set(full) - set(lacking) == {"SYS_RESOURCE"}
    assert full[21] == "SYS_ADMIN"


@pytest.mark.parametrize(
    ("error", "name"),
    [
        ('Error response from daemon: invalid CapAdd: unknown capability: "CAP_BPF"\n', "BPF"),
        ("unable to apply caps: operation not permitted", ""),
        ("", ""),
    ],
)
def test_an_engine_that_does_not_know_a_capability_says_which(error: str, name: str) -> None:
    assert container.unknown_capability(error) == name


def test_a_box_is_published_on_its_own_address_alone() -> None:
    words = container.create_arguments("n", "i", "127.0.0.9", FOLDER, ["--privileged"])
    published = [word for word in words if word.startswith("--publish=")]
    assert len(published) == len(address.PORTS)
    assert all(word.startswith("--publish=127.0.0.9:") for word in published)
    assert words[-2:] == ["--privileged", "i"]
    assert "--volume=n-docker:/var/lib/docker" in words


def test_a_push_from_inside_a_git_hook_goes_to_the_box() -> None:
    box = Box("n", "127.0.0.9", 2222, FOLDER)
    found = push_environment(box, {"GIT_DIR": "/elsewhere", "PATH": "/bin"})
    assert found == {"PATH": "/bin", "GIT_SSH_COMMAND": "ssh -F '/a b/50%/.sandbox/ssh_config'"}


def test_a_box_says_where_it_is() -> None:
    box = Box("n", "127.0.0.9", 2222, Path("/s"))
    assert box.url == "http://127.0.0.9:8000"
    assert box.ssh("true") == ("ssh", "-F", "/s/ssh_config", "vps", "true")
