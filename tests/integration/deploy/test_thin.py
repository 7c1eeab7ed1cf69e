"""An image that travels without the layers that are there, with a real engine at both ends."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.docker import engine, thin
from deploy.host import Host
from tests.support.container import docker

ROOT = Path(__file__).resolve().parents[3]
BASE = "python:3.11-slim-bookworm"


@pytest.fixture
def image() -> Iterator[str]:
    name = f"thin-test:{uuid.uuid4().hex[:8]}"
    docker(
        "build", "--quiet", "--tag", name, "-", stdin=f"FROM {BASE}\nLABEL a={name}\nRUN id >/id"
    )
    try:
        yield name
    finally:
        docker("image", "rm", "--force", name)


def test_an_engine_loads_what_it_has_most_of(here: Host, image: str, tmp_path: Path) -> None:
    identity = here.ask(engine.image_id(image))
    (layers,) = engine.parse_layers(here.ask(engine.layers_of(image)))
    there = engine.parse_layers(here.ask(engine.layers_of(BASE)))
    known = thin.common(layers, there)
    assert known == layers[:-1]
    archive = tmp_path / "image.tar"
    argv = (sys.executable, "-m", thin.__name__, image, *known)
    with archive.open("wb") as out:
        subprocess.run(argv, cwd=ROOT, stdout=out, check=True, timeout=60)
    assert archive.stat().st_size < 1_000_000
    docker("image", "rm", image)
    assert not here.run(engine.image_id(image)).ok
    with archive.open("rb") as source:
        subprocess.run(("docker", "load"), stdin=source, check=True, timeout=60)
    assert here.ask(engine.image_id(image)) == identity
