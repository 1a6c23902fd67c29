"""The worst rows that were ever found, and a short search for worse ones."""

import numpy as np
import pytest
from programs import loaded

worst_rows = loaded("tools", "worst_rows.py")
KEPT = list(worst_rows.kept())


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    "find", KEPT, ids=[f"{s.name}-{row.dtype}-{row.size}" for s, row, _ in KEPT]
)
def test_kept_rows(find):
    """Alone, many times in rows and in columns, and at other places in vectors."""
    subject, row, options = find
    turns = 1 if any(np.ndim(value) for value in options.values()) else 5
    for count in (1, 3, 17, 70):
        rows = np.stack([np.roll(row, k % turns) for k in range(count)])
        for layout in worst_rows.LAYOUTS:
            assert subject.errors(rows, layout, options).max() <= subject.bound(row.dtype), (
                count,
                layout,
            )


@pytest.mark.exhaustive
@pytest.mark.parametrize("subject", worst_rows.SUBJECTS, ids=lambda subject: subject.name)
def test_search(subject, dtype, backend):
    """A second of breeding finds nothing beyond the bound."""
    find = worst_rows.search(subject, dtype, seconds=1, seed=0)
    assert find.error <= subject.bound(dtype), find.as_json()
