"""The worst rows that were ever found, and a short search for worse ones."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from cases import CASES, check

PATH = Path(__file__).resolve().parent.parent / "tools" / "worst_rows.py"


def _tool():
    spec = importlib.util.spec_from_file_location("worst_rows", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


worst_rows = _tool()
KEPT = list(worst_rows.kept())


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("find", KEPT, ids=[f"{case}-{row.dtype}-{row.size}" for case, row, _ in KEPT])
def test_kept_rows(find):
    """Alone, many times in rows and in columns, and next to others: wherever it stands in vectors."""
    case, row, options = find
    check(case, case.call(row, **options), row, **options)
    for count in (3, 17, 70):
        x = np.stack([np.roll(row, k % 5) for k in range(count)])
        if any(np.ndim(v) for v in options.values()):
            x[:] = row
        check(case, case.call(x, **options), x, **options)
        if case.rowwise:
            turned = {name: v[:, None] if np.ndim(v) else v for name, v in options.items()}
            y = np.ascontiguousarray(x.T)
            check(case, case.call(y, axis=0, **turned), y, axis=0, **turned)


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", CASES, ids=str)
def test_search(case, dtype, backend):
    """Two seconds of breeding find nothing beyond the bound."""
    find = worst_rows.search(case, dtype, seconds=2, seed=int(np.random.default_rng().integers(2**32)))
    assert find.error <= case.bound(dtype), find.as_json()
