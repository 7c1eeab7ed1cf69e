"""A real image lists its packages, and can do nothing else meanwhile."""

from __future__ import annotations

from deploy.docker import sbom
from deploy.host import Host
from sandbox import images
from tests.support.container import docker

PYTHON = "python:3.11-slim-bookworm"


def test_an_image_lists_what_dpkg_and_python_know(here: Host) -> None:
    images.ensure((PYTHON,))
    found = sbom.parse(here.ask(sbom.listing(PYTHON)))
    known = docker("run", "--rm", "--entrypoint", "dpkg-query", PYTHON, "--show").splitlines()
    debian = {(item.name, item.version) for item in found if item.kind == sbom.DEBIAN}
    assert debian == {
        (line.split("\t")[0].partition(":")[0], line.split("\t")[1]) for line in known
    }
    asked = ("python3", "-m", "pip", "list", "--format", "freeze")
    python = docker("run", "--rm", PYTHON, *asked).split()
    mine = {f"{item.name}=={item.version}" for item in found if item.kind == sbom.PYTHON}
    assert set(python) <= mine
