"""Results too large for the caches, which are written past them,
and the memory that is kept for them.
"""

import gc
import os
import threading

import numpy as np
import oracle
import pytest
from cases import FLOATS, HALVES, OF_LOGITS
from sizes import exhaustive

import fastsoftmax as fs
from fastsoftmax import _memory

MIB = 2**20
pooled = pytest.mark.skipif(
    _memory._pool is None, reason="there is no pool without compiled modules"
)

# 28 MiB of float32: rows that are written along, computed again, kept in the output, and done in
# chunks.
SHAPES = [(73_400, 100), (1_835, 4001), (184, 40_003)]
SHAPES += [
    pytest.param(shape, marks=exhaustive)
    for shape in ((7_340, 1000), (229, 32_000), (3, 2_500_001))
]


def distance(a, b):
    """The largest distance in ulp of float32."""
    return np.abs(a.view(np.int32).astype(np.int64) - b.view(np.int32)).max()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_large_results_are_those_of_parts(name, shape, backend):
    """Wherever the output begins, and nothing beside it is touched."""
    function = getattr(fs, name)
    rows, n = shape
    x = np.random.default_rng(n).normal(0, 3, shape).astype(np.float32)
    some = [0, rows // 2, rows - 1]
    expected = np.stack([function(x[r]) for r in some])
    whole = np.full(x.size + 40, 7, np.float32)
    for start in (3, 16):
        out = whole[start : start + x.size].reshape(shape)
        function(x, out=out)
        assert distance(out[some], expected) <= 2
        np.testing.assert_array_equal(whole[:start], 7)
        np.testing.assert_array_equal(whole[start + x.size :], 7)
        whole[:] = 7


@pytest.mark.parametrize("n", [1024, 1000, 37, 5000])
@pytest.mark.parametrize("half", HALVES, ids=str)
def test_large_halves_are_those_of_parts(half, n, backend):
    """28 MiB, wherever the output begins and rows cut lines of the cache: the same bytes."""
    rows = 14 * MIB // n
    x = np.random.default_rng(n).normal(0, 3, (rows, n)).round(3).astype(half)
    whole = np.full(x.size + 70, 7, half)
    for start in (0, 8, 33):
        out = whole[start : start + x.size].reshape(x.shape)
        fs.softmax(x, out=out)
        for part in (slice(70), slice(rows // 2, rows // 2 + 70), slice(rows - 70, rows)):
            expected = fs.softmax(x[part])
            np.testing.assert_array_equal(out[part].view(np.int16), expected.view(np.int16))
        assert np.all(whole[:start] == 7)
        assert np.all(whole[start + x.size :] == 7)
        whole[:] = 7


@pytest.mark.parametrize("start", [0, 3, 16])
@pytest.mark.parametrize("shape", [(4096, 2000), (40, 200_000)], ids=str)
def test_large_columns(shape, start, backend):
    x = np.random.default_rng(1).normal(0, 3, shape).astype(np.float32)
    whole = np.full(x.size + 40, 7, np.float32)
    got = fs.softmax(x, axis=0, out=whole[start : start + x.size].reshape(shape))
    some = [0, 1, 130, shape[1] - 1]
    assert distance(got[:, some], fs.softmax(np.ascontiguousarray(x[:, some].T)).T.copy()) <= 3
    assert np.all(whole[:start] == 7)
    assert np.all(whole[start + x.size :] == 7)


# Columns in wide strips: 2 MiB and more, or logarithms of long ones. Strips leave a few of these to
# others.
COLUMNS = [(20, 27_001), (300, 2001), (130, 515)]
COLUMNS += [
    pytest.param(shape, marks=exhaustive) for shape in ((33, 16_500), (1000, 700), (2100, 512))
]


def columns(shape, dtype):
    n, inner = shape
    x = np.random.default_rng(inner).normal(0, 3, shape).astype(dtype)
    x[n // 2, 3] = np.nan
    x[1, 200] = np.inf
    x[:, 205] = -np.inf
    x[:, 310] += 9000
    x[:, 320:340] = x[:, 320:340].round()
    x[n - 1, 411] = 75
    x[n // 3, 412] = 40
    x[:, 413] = -20 - np.abs(x[:, 413])
    x[:, inner - 1] -= 9000
    return x


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", COLUMNS, ids=str)
@pytest.mark.parametrize("case", OF_LOGITS, ids=str)
def test_strips_of_columns(case, shape, dtype, backend):
    x = case.oriented(columns(shape, dtype))
    some = np.r_[0:16, 196:208, 305:345, 405:416, shape[1] - 17 : shape[1]]
    exact = case.exact(x[:, some], axis=0)
    got = case.call(x, axis=0)
    assert oracle.ulp_error(got[..., some], exact).max() <= case.bound(dtype)
    if not case.reduced:
        room = np.full((shape[0], shape[1] + 24), 7, dtype)  # with other numbers at both sides
        out = room[:, 11 : 11 + shape[1]]
        for threads in (1, 2):
            case.call(x, axis=0, out=out, num_threads=threads)
            np.testing.assert_array_equal(out, got)
            assert (room[:, :11] == 7).all()
            assert (room[:, 11 + shape[1] :] == 7).all()
        np.testing.assert_array_equal(case.call(x, axis=0, out=x), got)


# --- the pool -------------------------------------------------------------------------------------


@pytest.fixture
def _restored():
    yield
    fs.set_buffer_pool(_memory.DEFAULT_LIMIT)


@pooled
@pytest.mark.usefixtures("_restored")
@pytest.mark.parametrize(
    "call",
    [fs.softmax, lambda x: fs.softmax(x, temperature=2.0), fs.sigmoid],
    ids=["softmax", "softmax, temperature", "sigmoid"],
)
def test_memory_is_used_again(call):
    fs.set_buffer_pool(0)
    fs.set_buffer_pool(64 * MIB)
    x = np.zeros((2, 4 * MIB), np.float32)
    first = call(x)
    address = first.ctypes.data
    expected = first[1, -5:].copy()
    del first
    assert _memory._pool.held() == 32 * MIB
    second = call(x)
    assert second.ctypes.data == address
    assert _memory._pool.held() == 0
    assert second.flags.c_contiguous
    assert second.flags.writeable
    assert second.flags.aligned
    np.testing.assert_array_equal(second[1, -5:], expected)


@pooled
@pytest.mark.usefixtures("_restored")
def test_memory_waits_for_every_view():
    fs.set_buffer_pool(64 * MIB)
    x = np.zeros((2, 4 * MIB), np.float32)
    result = fs.softmax(x)
    view = memoryview(result[1, ::7])
    kept = np.array(view)
    del result
    gc.collect()
    other = fs.softmax(np.ones_like(x) * np.arange(4 * MIB, dtype=np.float32))
    assert not np.shares_memory(other, np.asarray(view))
    np.testing.assert_array_equal(np.asarray(view), kept)


@pooled
@pytest.mark.usefixtures("_restored")
def test_limits():
    """Neither more than the limit is kept, nor results above it, nor small ones;
    0 frees everything.
    """
    x = np.zeros((1, 4 * MIB), np.float32)
    fs.set_buffer_pool(24 * MIB)
    results = [fs.softmax(x) for _ in range(3)]
    del results
    assert _memory._pool.held() == 16 * MIB
    fs.set_buffer_pool(8 * MIB)
    assert _memory._pool.held() == 0
    assert fs.softmax(x).flags.owndata
    assert fs.softmax(x[:, :1000]).flags.owndata
    fs.set_buffer_pool(0)
    assert fs.softmax(x).flags.owndata


@pooled
@pytest.mark.usefixtures("_restored")
def test_new_sizes_displace_old_ones():
    """A block of a size that nobody wants any more does not keep others out."""
    fs.set_buffer_pool(0)
    fs.set_buffer_pool(40 * MIB)
    fs.softmax(np.zeros((2, 4 * MIB), np.float32))
    assert _memory._pool.held() == 32 * MIB
    x = np.zeros((1, 4 * MIB), np.float32)
    for _ in range(2):
        address = fs.softmax(x).ctypes.data
        assert _memory._pool.held() == 16 * MIB
        assert fs.softmax(x).ctypes.data == address
    sizes = [MIB + MIB // 2 * k for k in range(7)] + [MIB] * 12
    many = [fs.softmax(x[:, :size]) for size in sizes]
    del many
    assert 30 * MIB <= _memory._pool.held() <= 40 * MIB


@pooled
@pytest.mark.usefixtures("_restored")
def test_gradients_and_half_precision_use_it():
    fs.set_buffer_pool(64 * MIB)
    x = np.zeros((2, 4 * MIB), np.float32)
    _, gradient = fs.cross_entropy_value_and_grad(x, np.zeros(2, int))
    assert not gradient.flags.owndata
    half = fs.softmax(x.astype(np.float16))
    assert half.dtype == np.float16
    assert not half.flags.owndata


@pooled
@pytest.mark.usefixtures("_restored")
def test_threads_share_it():
    """Whatever is handed out belongs to one array at a time."""
    fs.set_buffer_pool(32 * MIB)
    failures = []

    def work(seed):
        x = np.full((1, MIB), seed, np.float32)
        for turn in range(30):
            y = fs.softmax(x, num_threads=1)
            y[0, :] = seed
            z = fs.sigmoid(x, num_threads=1)
            if not (y == seed).all() or np.shares_memory(y, z):
                failures.append((seed, turn))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pooled
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("default::DeprecationWarning")  # of forking a process with threads
@pytest.mark.usefixtures("_restored")
def test_a_forked_child_goes_on():
    fs.set_buffer_pool(64 * MIB)
    x = np.zeros((1, 4 * MIB), np.float32)
    kept = fs.softmax(x)
    fs.softmax(x)
    child = os.fork()
    if not child:
        right = fs.softmax(x)[0, 0] == kept[0, 0] == np.float32(2.0**-22)
        del kept
        fs.set_buffer_pool(0)
        os._exit(0 if right and _memory._pool.held() == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("nbytes", [1.5, "1", None, True])
def test_the_limit_must_be_an_integer(nbytes):
    with pytest.raises(TypeError, match="nbytes"):
        fs.set_buffer_pool(nbytes)


def test_the_limit_must_not_be_negative():
    with pytest.raises(ValueError, match="nbytes must be at least 0, got -1"):
        fs.set_buffer_pool(-1)
