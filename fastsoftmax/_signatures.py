"""What type checkers see of the public functions: the type of a result, from those of the arguments.

A room decorates its functions with `activation`, `reduction` and so on, which return them as they are. To a
type checker the result is the Protocol of that name, and it checks that the function takes all that the
Protocol promises. Where the type of a result cannot be told it is Any; that an array may turn out to have no
axis, and its result to be a scalar, is left out of account.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, TypeVar, overload

import numpy as np
import numpy.typing as npt
from numpy.typing import DTypeLike, NDArray


class SupportsDLPack(Protocol):
    """A tensor of another library."""

    def __dlpack__(self) -> Any: ...


ArrayLike: TypeAlias = npt.ArrayLike | SupportsDLPack
Axis: TypeAlias = int | tuple[int, ...] | None

# What becomes float64: integers and booleans, Python's numbers, and nested sequences of any of them.
Exact: TypeAlias = NDArray[np.integer[Any]] | NDArray[np.bool_]
Numbers: TypeAlias = "Sequence[float | Numbers]"
Number: TypeAlias = "float | np.integer[Any] | np.bool_"

Out = TypeVar("Out", bound=NDArray[Any])
Float = TypeVar("Float", bound=np.floating[Any])
Wide = TypeVar("Wide", np.float32, np.float64, np.longdouble)  # not changed by a reduction, as float16 is
DType: TypeAlias = type[Float] | np.dtype[Float]
Threads: TypeAlias = int | None


class Activation(Protocol):
    """softmax and its like: a result for every element, from the row it stands in."""

    @overload
    def __call__(
        self,
        x: ArrayLike,
        axis: Axis = ...,
        *,
        temperature: ArrayLike = ...,
        base: float | None = ...,
        where: ArrayLike | None = ...,
        out: Out,
        dtype: DTypeLike | None = ...,
        num_threads: Threads = ...,
    ) -> Out: ...
    @overload
    def __call__(
        self,
        x: NDArray[Any] | Numbers,
        axis: Axis = ...,
        *,
        temperature: ArrayLike = ...,
        base: float | None = ...,
        where: ArrayLike | None = ...,
        out: None = ...,
        dtype: DType[Float],
        num_threads: Threads = ...,
    ) -> NDArray[Float]: ...
    @overload
    def __call__(
        self,
        x: NDArray[Float],
        axis: Axis = ...,
        *,
        temperature: ArrayLike = ...,
        base: float | None = ...,
        where: ArrayLike | None = ...,
        out: None = ...,
        dtype: None = ...,
        num_threads: Threads = ...,
    ) -> NDArray[Float]: ...
    @overload
    def __call__(
        self,
        x: Exact | Numbers,
        axis: Axis = ...,
        *,
        temperature: ArrayLike = ...,
        base: float | None = ...,
        where: ArrayLike | None = ...,
        out: None = ...,
        dtype: None = ...,
        num_threads: Threads = ...,
    ) -> NDArray[np.float64]: ...
    @overload
    def __call__(
        self,
        x: ArrayLike,
        axis: Axis = ...,
        *,
        temperature: ArrayLike = ...,
        base: float | None = ...,
        where: ArrayLike | None = ...,
        out: NDArray[Any] | None = ...,
        dtype: DTypeLike | None = ...,
        num_threads: Threads = ...,
    ) -> Any: ...


class Elementwise(Protocol):
    """sigmoid and its like."""

    @overload
    def __call__(
        self, x: ArrayLike, *, out: Out, dtype: DTypeLike | None = ..., num_threads: Threads = ...
    ) -> Out: ...
    @overload
    def __call__(
        self, x: NDArray[Any] | Numbers, *, out: None = ..., dtype: DType[Float], num_threads: Threads = ...
    ) -> NDArray[Float]: ...
    @overload
    def __call__(
        self, x: NDArray[Float], *, out: None = ..., dtype: None = ..., num_threads: Threads = ...
    ) -> NDArray[Float]: ...
    @overload
    def __call__(
        self, x: Exact | Numbers, *, out: None = ..., dtype: None = ..., num_threads: Threads = ...
    ) -> NDArray[np.float64]: ...
    @overload
    def __call__(
        self, x: Float, *, out: None = ..., dtype: None = ..., num_threads: Threads = ...
    ) -> Float: ...
    @overload
    def __call__(
        self, x: Number, *, out: None = ..., dtype: None = ..., num_threads: Threads = ...
    ) -> np.float64: ...
    @overload
    def __call__(
        self,
        x: ArrayLike,
        *,
        out: NDArray[Any] | None = ...,
        dtype: DTypeLike | None = ...,
        num_threads: Threads = ...,
    ) -> Any: ...


def activation(function: Activation) -> Activation:
    """Decorate a function like softmax."""
    return function


def elementwise(function: Elementwise) -> Elementwise:
    """Decorate a function like sigmoid."""
    return function
