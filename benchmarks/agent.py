"""How large the agent's image is, and how soon it is healthy.

`python -m benchmarks.agent [ROUNDS]` builds the image of this checkout, brings it to the box, and
tells what it adds to its base. There it starts the agent that many times, beside a PostgreSQL
with the schema in place, and takes the time from `docker run` to the first /health that is 200,
by the box's own clock. Everything deployed in the box is removed first.
"""

from __future__ import annotations

import shlex
import statistics
import sys
from pathlib import Path

from sandbox import box as boxes
from sandbox import contents
from sandbox.box import Box
from sandbox.shell import must, pipe, say

ROOT = Path(__file__).resolve().parents[1]
BASE = "python:3.11-slim-bookworm"
POSTGRES = "postgres:15-bookworm"
IMAGE = "agent-benchmark"
NETWORK = "agent-benchmark"
DATABASE = "postgresql://postgres:benchmark@database:5432/postgres"
LONG = 600.0  # seconds
ROUNDS = 10
LAYERS = ("docker", "history", "--human=false", "--format", "{{.Size}}")
PREPARE = """
set -eu
docker network create "$1" >/dev/null
docker run --detach --name database --network "$1" --env POSTGRES_PASSWORD=benchmark "$2" >/dev/null
for _ in $(seq 300); do
    docker exec database pg_isready --quiet --host 127.0.0.1 --username postgres && break
    sleep 0.1
done
docker run --rm --network "$1" --env "DATABASE_URL=$4" "$3" alembic upgrade head >/dev/null 2>&1
"""
START = """
set -eu
began=$(date +%s%N)
docker run --detach --name agent --network "$1" --publish 127.0.0.1:9000:8000 \
    --env "DATABASE_URL=$3" "$2" >/dev/null
ends=$((began + 60000000000))
until curl --silent --fail --max-time 1 --output /dev/null http://127.0.0.1:9000/health; do
    [ "$(date +%s%N)" -lt "$ends" ] || { docker logs agent >&2; exit 1; }
    sleep 0.01
done
echo $(($(date +%s%N) - began))
docker rm --force agent >/dev/null
"""
CLEAN = """
docker rm --force --volumes agent database >/dev/null 2>&1
docker network rm "$1" >/dev/null
docker image rm "$2" >/dev/null
"""


def size(image: str) -> int:
    """Return the bytes of an image's layers, as this machine's engine counts them."""
    return sum(map(int, must((*LAYERS, image), deadline=60, next_step="docker images").split()))


def build(box: Box) -> None:
    """Build the image here, and bring it to the box."""
    argv = ("docker", "build", "--quiet", "--target", "runtime", "--tag", IMAGE, str(ROOT))
    must(argv, deadline=LONG, next_step="docker build --target runtime .")
    pipe(
        ("docker", "save", IMAGE), box.ssh("docker", "load"), deadline=LONG, next_step="docker info"
    )


def run(box: Box, text: str, *arguments: str) -> str:
    """Run a shell text in the box."""
    argv = shlex.join(("bash", "-c", text, "benchmark", *arguments))
    return must(box.ssh(argv), deadline=LONG, next_step="inv sandbox.up")


def main(rounds: int) -> None:
    """Measure, and print."""
    box = boxes.up(ROOT / ".sandbox")
    contents.reset(box)
    build(box)
    base, whole = size(BASE), size(IMAGE)
    say(f"image: {(whole - base) / 1e6:.1f} MB on top of a base of {base / 1e6:.1f} MB")
    try:
        run(box, PREPARE, NETWORK, POSTGRES, IMAGE, DATABASE)
        took = [int(run(box, START, NETWORK, IMAGE, DATABASE)) / 1e9 for _ in range(rounds)]
    finally:
        run(box, CLEAN, NETWORK, IMAGE)
        must(("docker", "image", "rm", IMAGE), deadline=60, next_step="docker images")
    say(
        f"start to healthy, {rounds} times: median {statistics.median(took):.2f} s, "
        f"best {min(took):.2f} s, worst {max(took):.2f} s"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
