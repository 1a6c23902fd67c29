"""The bytes of results are those on record."""

import golden
import pytest

RECORDED = golden.recorded()


def operation(key):
    """As in "softmax, where: 2x10, axis 1"."""
    return key.partition(":")[0].partition(",")[0]


def of_known(recorded, found):
    known = set(map(operation, recorded))
    return {key: hashes for key, hashes in found.items() if operation(key) in known}


def test_only_new_operations_are_let_through():
    recorded = {"softmax: 2x10, axis 1": "0"}
    found = recorded | {"softmax, where: 2x10, axis 1": "1", "toy, where: 2x10, axis 1": "2"}
    assert list(of_known(recorded, found)) == list(found)[:2]


@pytest.mark.exhaustive
@pytest.mark.skipif(not RECORDED, reason=f"no hashes on record for {golden.MACHINE}")
@pytest.mark.parametrize("name", golden.compiled_backends())
def test_golden(name):
    """Where they are meant to change, `python tests/golden.py --record` writes them anew.

    An operation of which nothing is on record is new, and changes nothing.
    """
    changed = list(
        golden.differences(RECORDED[name], of_known(RECORDED[name], golden.hashes(name)))
    )
    assert not changed, "\n".join(changed)
