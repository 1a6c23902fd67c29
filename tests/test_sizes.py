"""The lengths that tests go through by default are those of the kernels."""

import re
from pathlib import Path

import pytest
from sizes import THRESHOLDS

import fastsoftmax as fs

HEADER = Path(fs.__file__).with_name("kernels") / "tuning.h"  # not where a wheel is installed


@pytest.mark.parametrize("name", THRESHOLDS)
def test_thresholds_are_those_of_the_kernels(name):
    if HEADER.exists():
        text = HEADER.read_text(encoding="utf-8")
        assert re.findall(rf"constexpr Index {name} = (\d+);", text) == [str(THRESHOLDS[name])]
