"""Arrays of every kind to call the package with, and the way to ask for an error."""

import re

import numpy as np
import pytest


def refuses(call, error, *words):
    """Assert that ``call()`` raises ``error`` with a message that holds every one of ``words``."""
    with pytest.raises(error) as caught:
        call()
    for word in words:
        whole = rf"\b{word}\b" if word.isidentifier() else re.escape(word)
        assert re.search(whole, str(caught.value)), f"{caught.value} does not name {word}"


def layouts(x):
    """The numbers of ``x`` (three axes) in every memory layout."""
    yield "contiguous", x.copy()
    yield "Fortran", np.asfortranarray(x)
    for order in [(1, 0, 2), (0, 2, 1), (2, 1, 0), (1, 2, 0), (2, 0, 1)]:
        yield (
            f"transposed {order}",
            np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order)),
        )
    for axis in range(3):
        yield f"reversed along {axis}", np.flip(np.flip(x, axis).copy(), axis)
        wide = np.repeat(x, 3, axis)
        every_third = (slice(None),) * axis + (slice(1, None, 3),)
        yield f"every third along {axis}", wide[every_third]
        flat = x[(slice(None),) * axis + (slice(0, 1),)]
        yield f"stride 0 along {axis}", np.broadcast_to(flat, x.shape)
    yield "stride 0 everywhere", np.broadcast_to(x[0, 0, 0], x.shape)
    read_only = x.copy()
    read_only.flags.writeable = False
    yield "read-only", read_only
    yield "byte-swapped", x.astype(x.dtype.newbyteorder("S"))
    buffer = np.zeros(x.nbytes + 1, np.uint8)
    misaligned = buffer[1:].view(x.dtype).reshape(x.shape)
    misaligned[...] = x
    yield "misaligned", misaligned
    record = np.zeros(x.shape, [("flag", np.int8), ("value", x.dtype), ("rest", np.float32)])
    record["value"] = x
    yield "field of records", record["value"]
    buffer = np.zeros(x.nbytes + 1, np.uint8)
    misaligned = buffer[1:].view(x.dtype).reshape(x.shape)
    misaligned[...] = x[::-1, :, ::-1]
    yield "misaligned and reversed", misaligned[::-1, :, ::-1]
    swapped = np.asfortranarray(x.astype(x.dtype.newbyteorder("S")))
    yield "byte-swapped Fortran", swapped
    yield "windows", np.lib.stride_tricks.sliding_window_view(x[0, 0], 2)[None]


def outs(shape, dtype):
    """Arrays to write to, in every layout that does not overlap itself,
    and all the memory they lie in.
    """
    shape = tuple(shape)
    plain = np.full(shape, np.nan, dtype)
    yield "contiguous", plain, plain
    memory = np.full(shape[::-1], np.nan, dtype)
    yield "Fortran", memory.T, memory
    for axis in range(len(shape)):
        wide = np.full(
            [3 * size if i == axis else size for i, size in enumerate(shape)], np.nan, dtype
        )
        yield f"every third along {axis}", wide[(slice(None),) * axis + (slice(1, None, 3),)], wide
        memory = np.full(shape, np.nan, dtype)
        yield f"reversed along {axis}", np.flip(memory, axis), memory
    buffer = np.zeros(plain.nbytes + 9, np.uint8)
    yield "misaligned", buffer[1:-8].view(dtype).reshape(shape), buffer
    frame = np.full([size + 4 for size in shape], np.nan, dtype)
    yield "window of a larger array", frame[(slice(2, -2),) * len(shape)], frame


def pairs_of_views(size, dtype):
    """Pairs of views of one buffer: shifted either way, interleaved, at other strides, reversed."""
    for shift in (1, 2, 7, size // 2, size - 1):
        for forth in (False, True):
            memory = np.zeros(2 * size, dtype)
            pair = memory[:size], memory[shift : shift + size]
            yield f"shifted by {shift}", memory, *(pair if forth else pair[::-1])
    memory = np.zeros(3 * size, dtype)
    yield "interleaved", memory, memory[: 2 * size : 2], memory[1 : 2 * size : 2]
    yield "strides 1 and 2", memory, memory[:size], memory[: 2 * size : 2]
    yield "strides 2 and 1", memory, memory[: 2 * size : 2], memory[:size]
    yield "strides 2 and 3", memory, memory[: 2 * size : 2], memory[: 3 * size : 3]
    yield "reversed", memory, memory[:size], memory[:size][::-1]
    yield "reversed and shifted", memory, memory[:size], memory[3 : size + 3][::-1]


class Exporter:
    """An array of another library: nothing but DLPack."""

    def __init__(self, array, device=(1, 0)):
        self.array, self.device, self.exports = array, device, 0

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        self.exports += 1
        assert not copy
        if self.device[0] != 1:
            raise BufferError("this memory is on another device")
        return self.array.__dlpack__()


REFUSED = {
    "matrix": lambda: np.ones((2, 2)).view(np.matrix),
    "object": lambda: np.array([1.0, 2.0], object),
    "complex": lambda: np.array([1.0, 2.0j]),
    "complex64": lambda: np.array([1.0, 2.0], np.complex64),
    "str": lambda: np.array(["1.0", "2.0"]),
    "bytes": lambda: np.array([b"1.0"]),
    "string": lambda: "1.0",
    "None": lambda: None,
    "datetime": lambda: np.array(["2020-01-01"], "M8[D]"),
    "timedelta": lambda: np.array([1], "m8[s]"),
    "records": lambda: np.zeros(3, [("a", float)]),
    "complex number": lambda: 1j,
    "dict": lambda: {"a": 1},
}
