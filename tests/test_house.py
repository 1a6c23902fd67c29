"""The rules of the house, read from the sources."""

import itertools
import re

import pytest
from programs import ROOT

PACKAGE = ROOT / "fastsoftmax"
HEADERS = sorted(PACKAGE.glob("*/*.h"))
KINDS = (".h", ".pxi", ".pyx", ".py")
COLUMNS = 100
LINES = 400  # of a header
STEP = 100

# Headers that are longer, and what they keep below: numbers that may only fall. A header that is
# shorter by a whole step takes its number along; one that keeps to LINES leaves the table.
LONGER = {
    "cross_entropy.h": 1700,
    "divergence.h": 600,
    "normalize.h": 2000,
    "pointwise.h": 900,
    "reading.h": 700,
    "row_map.h": 700,
    "rows.h": 700,
    "simd.h": 600,
    "spans.h": 500,
    "vexp.h": 600,
    "views.h": 500,
    "weighted.h": 600,
    "work.h": 500,
}

pytestmark = pytest.mark.skipif(not (PACKAGE.is_dir() and HEADERS), reason="needs the sources")


def sources():
    """What people write: not the modules' stubs, which setup.py writes."""
    folders = [ROOT / name for name in ("tests", "benchmarks", "docs", "examples", "tools")]
    found = {path for folder in (PACKAGE, *folders) for path in folder.rglob("*.*")}
    found = found - set(PACKAGE.glob("kernels/*.pyx")) | {ROOT / "setup.py"}
    return sorted(path for path in found if path.suffix in KINDS)


def width(line):
    """Columns of a line, less a pragma at its end, as ruff counts them."""
    return len(re.sub(r"  # (noqa|type: ).*", "", line))


def lines_of(path):
    return path.read_text(encoding="utf-8").splitlines()


def test_no_line_is_longer_than_the_page():
    paths = sources()
    assert {path.suffix for path in paths} == set(KINDS)
    assert [
        f"{path.relative_to(ROOT)}:{number}: {width(line)} columns"
        for path in paths
        for number, line in enumerate(lines_of(path), 1)
        if width(line) > COLUMNS
    ] == []


def test_headers_are_short():
    lengths = {path.name: len(lines_of(path)) for path in HEADERS}
    assert {
        name: length for name, length in lengths.items() if length > LONGER.get(name, LINES)
    } == {}


def test_exceptions_only_shrink():
    lengths = {path.name: len(lines_of(path)) for path in HEADERS}
    assert set(LONGER) <= set(lengths)
    for name, most in LONGER.items():
        assert lengths[name] > LINES, f"{name} is no exception any more: take it out of LONGER"
        assert lengths[name] > most - STEP, f"{name}: LONGER can say {most - STEP}"


def test_headers_have_names_of_their_own():
    """They are included by name, from either folder."""
    names = [path.name for path in HEADERS]
    assert [a for a, b in itertools.pairwise(sorted(names)) if a == b] == []
