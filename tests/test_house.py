"""The rules of the house, read from the sources."""

import itertools
import re

import pytest
from programs import ROOT

PACKAGE = ROOT / "fastsoftmax"
HEADERS = sorted(PACKAGE.rglob("*.h"))
KINDS = (".h", ".pxi", ".pyx", ".py")
COLUMNS = 100
LINES = 370  # of a header
FLOORS = ("simd", "memory", "math", "drivers")  # of kernels/, from the bottom up
SIDE_BY_SIDE = {"memory", "math"}

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
    lengths = {str(path.relative_to(PACKAGE)): len(lines_of(path)) for path in HEADERS}
    assert {name: length for name, length in lengths.items() if length > LINES} == {}


def includes(path):
    return re.findall(r'^#include "(.*)"$', path.read_text(encoding="utf-8"), re.MULTILINE)


def test_included_paths_are_those_of_the_package():
    for path in HEADERS:
        for name in includes(path):
            assert (PACKAGE / name).is_file(), f"{path.name} includes {name}"


def test_no_floor_looks_up():
    for path in (PACKAGE / "kernels").rglob("*.h"):
        floor = path.parent.name
        for name in includes(path):
            folder, *rest = name.split("/")
            assert folder == "kernels", f"{path.name} includes {name}"
            if len(rest) < 2 or floor == "kernels":  # tuning.h is for every floor
                assert rest == ["tuning.h"] or floor == "kernels"
                continue
            assert FLOORS.index(rest[0]) <= FLOORS.index(floor), f"{path.name} includes {name}"
            assert {rest[0], floor} != SIDE_BY_SIDE, f"{path.name} includes {name}"


def words(path):
    """The identifiers of a header, without comments and texts."""
    code = re.sub(r"//.*|\"[^\"\n]*\"", "", path.read_text(encoding="utf-8"))
    return set(re.findall(r"[A-Za-z_]\w*", code))


def test_kernels_name_no_operation():
    """But sigmoid, softplus and logit, which are functions of mathematics, too."""
    rooms = {path.stem for path in PACKAGE.glob("ops/*.pxi")} - {"sigmoid", "softplus", "logit"}
    names = rooms | {name.title().replace("_", "") for name in rooms}
    logistic = PACKAGE / "kernels" / "math" / "logistic.h"  # log_sigmoid is at home there
    for path in set((PACKAGE / "kernels").rglob("*.h")) - {logistic}:
        assert not words(path) & names, path.name
    assert not words(PACKAGE / "kernels" / "prelude.pxi") & names


def test_headers_have_names_of_their_own():
    names = [path.name for path in HEADERS]
    assert [a for a, b in itertools.pairwise(sorted(names)) if a == b] == []
