"""The list of what an image is made of: read, written as CycloneDX, compared."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from deploy.docker import sbom
from deploy.docker.sbom import Package
from deploy.report import text

SAID = """
debian\tlibc6\t2.36-9+deb12u13\tamd64
debian\tlibpq5\t1:15.4-1~deb12u1\tamd64
python\tPyYAML\t6.0.3\t
python\truamel.yaml\t0.18\t
python\tPyYAML\t6.0.3\t
python\tNone\tNone
debian\t<script>\t1\tamd64
anything else
"""
KNOWN = sbom.parse(SAID)
words = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,20}", fullmatch=True)
packages = st.lists(
    st.one_of(
        st.builds(Package, st.just("python"), words, words),
        st.builds(Package, st.just("debian"), words, words, st.sampled_from(["amd64", "all"])),
    ),
    unique_by=lambda item: item.purl,
).map(sorted)


def test_what_an_image_says_is_read_and_its_noise_is_not() -> None:
    assert [(item.name, item.version) for item in KNOWN] == [
        ("libc6", "2.36-9+deb12u13"),
        ("libpq5", "1:15.4-1~deb12u1"),
        ("PyYAML", "6.0.3"),
        ("ruamel.yaml", "0.18"),
    ]
    assert [item.purl for item in KNOWN] == [
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u13?arch=amd64",
        "pkg:deb/debian/libpq5@1%3A15.4-1~deb12u1?arch=amd64",
        "pkg:pypi/pyyaml@6.0.3",
        "pkg:pypi/ruamel-yaml@0.18",
    ]


@given(st.text())
def test_whatever_an_image_says_is_harmless(said: str) -> None:
    sbom.parse(said)
    sbom.packages_in(said)


@given(packages)
def test_a_document_reads_back_as_it_was_written(found: list[Package]) -> None:
    data = sbom.document(found, "shop", "abc", "2026-01-01T00:00:00Z")
    assert sbom.packages_in(data.decode()) == tuple(found)
    references = [item["bom-ref"] for item in json.loads(data)["components"]]
    assert len(set(references)) == len(references)


def test_what_differs_is_named_with_both_versions() -> None:
    before = [Package("python", "a", "1"), Package("python", "b", "1"), Package("debian", "c", "1")]
    after = [Package("python", "a", "2"), Package("debian", "c", "1"), Package("debian", "d", "1")]
    found = sbom.difference(before, after)
    assert found == sbom.Difference(("d 1",), ("b 1",), ("a 1 → 2",))
    told = sbom.as_json(after, 99, "r1", found)
    assert told["counts"] == {"added": 1, "removed": 1, "changed": 1}
    assert text.packages({"sbom": told}) == [
        "1 Python, 2 Debian; since r1: 1 added, 1 removed, 1 changed",
        "added: d 1",
        "removed: b 1",
        "changed: a 1 → 2",
    ]


def test_without_another_list_there_is_nothing_to_compare() -> None:
    assert sbom.packages_in("") is None
    told = sbom.as_json(KNOWN, 99, "r1", None)
    assert (told["python"], told["debian"], told["against"]) == (2, 2, "")
    assert text.packages({"sbom": told}) == ["2 Python, 2 Debian"]
    same = sbom.as_json(KNOWN, 99, "r1", sbom.difference(KNOWN, KNOWN))
    assert text.packages({"sbom": same}) == ["2 Python, 2 Debian; since r1: the same"]
    assert text.packages({}) == []
