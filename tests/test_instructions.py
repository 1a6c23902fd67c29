"""The guard that counts instructions: reading what callgrind wrote, and judging it.
CI does the counting.
"""

import json
import math

import pytest
from programs import loaded

DUMP = """\
version: 1
desc: Trigger: Client Request: softmax float32 4x1000
positions: line
events: Ir
ob=/usr/lib/python3.so
fn=call
0 1000
ob=/usr/lib/fastsoftmax/kernels/avx2.cpython-311.so
fn=run
12 30
fi=simd.h
14 4
cob=/usr/lib/libm.so
cfn=log
calls=2 0
12 500
13 2
ob=/usr/lib/libm.so
fn=log
0 500
"""


@pytest.fixture(scope="module")
def instructions():
    return loaded("benchmarks", "instructions.py")


def test_costs_of_one_module_are_read(instructions):
    """Not those of other modules, nor those of what it calls."""
    assert instructions.read_dump(DUMP, "avx2") == ("softmax float32 4x1000", 36)
    assert instructions.read_dump(DUMP, "baseline") == ("softmax float32 4x1000", 0)


@pytest.mark.parametrize(
    ("counted", "recorded", "failure"),
    [
        (1040, 1000, False),
        (1051, 1000, True),
        (900, 1000, False),
        (1000, 1000, False),
        (1000, None, True),
    ],
)
def test_five_percent_more_fail(instructions, counted, recorded, failure):
    assert instructions.verdict(instructions.change(counted, recorded)).startswith("!") == failure


def test_compare(instructions, monkeypatch, capsys):
    monkeypatch.setattr(instructions, "compiler", lambda backend: "GCC 12")
    record = {"compiler": "GCC 12", "counts": {"avx2": {"a": 1000, "b": 1000}}}
    assert instructions.compare("avx2", {"a": 1010, "b": 800}, record)
    assert "fewer" in capsys.readouterr().out
    assert not instructions.compare("avx2", {"a": 1010, "b": 1100}, record)
    assert not instructions.compare("avx2", {"c": 1}, record)
    assert instructions.compare("avx2", {"a": 5000}, record | {"compiler": "GCC 14"})
    assert "not compared" in capsys.readouterr().out


def test_every_case_is_on_record_and_can_be_called(instructions):
    names = {str(case) for case in instructions.CASES}
    assert len(names) == len(instructions.CASES)
    record = json.loads(instructions.RECORD.read_text())
    for counts in record["counts"].values():
        assert set(counts) == names
        assert all(count > 0 and not math.isnan(count) for count in counts.values())
    for case in instructions.CASES:
        case.call()()
