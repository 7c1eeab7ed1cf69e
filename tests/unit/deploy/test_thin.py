"""Which layers of an image need not travel, and what is left of it without them."""

from __future__ import annotations

import hashlib
import io
import tarfile

from hypothesis import example, given
from hypothesis import strategies as st

from deploy.docker.engine import parse_layers
from deploy.docker.thin import common, sift

LAYERS = st.lists(st.sampled_from("abcdef"), max_size=6)


@given(LAYERS, st.lists(LAYERS, max_size=5))
@example(["a", "a"], [["a"]])
def test_what_stays_behind_is_there_upon_the_same_layers(
    layers: list[str], there: list[list[str]]
) -> None:
    left = common(layers, there)
    longest = max(
        (
            number
            for number in range(len(layers) + 1)
            for one in there
            if one[:number] == layers[:number] and len(one) >= number
        ),
        default=0,
    )
    assert set(left) <= set(layers[:longest])
    assert not set(left) & set(layers[longest:])
    assert set(layers[:longest]) - set(layers[longest:]) == set(left)


def saved(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def names(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getnames()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_both_layouts_lose_what_is_known_and_nothing_else() -> None:
    known, new = b"known" * 1000, b"new"
    files = {
        "1/layer.tar": known,
        "2/layer.tar": new,
        f"blobs/sha256/{digest(known)}": known,
        f"blobs/sha256/{digest(new)}": new,
        "manifest.json": b"[]",
    }
    out = io.BytesIO()
    sift(io.BytesIO(saved(files)), out, {f"sha256:{digest(known)}"})
    assert names(out.getvalue()) == ["2/layer.tar", f"blobs/sha256/{digest(new)}", "manifest.json"]
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        read = archive.extractfile("2/layer.tar")
        assert read
        assert read.read() == new


def test_layers_that_are_none_are_left_out() -> None:
    assert parse_layers('["a","b"]\nnull\n{\n["c"]\n') == (("a", "b"), ("c",))
