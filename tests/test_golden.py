"""The bytes of results are those on record."""

import golden
import pytest

RECORDED = golden.recorded()


@pytest.mark.exhaustive
@pytest.mark.skipif(not RECORDED, reason=f"no hashes on record for {golden.MACHINE}")
@pytest.mark.parametrize("name", golden.compiled_backends())
def test_golden(name):
    """Where they are meant to change, `python tests/golden.py --record` writes them anew."""
    changed = list(golden.differences(RECORDED[name], golden.hashes(name)))
    assert not changed, "\n".join(changed)
