"""What type checkers see of the public functions: the type of a result, from those of the
arguments.

A room decorates its functions with `activation`, `reduction` and so on, which return them as they
are. To a type checker the result is the Protocol of that name, and it checks that the function
takes all that the Protocol promises. Where the type of a result cannot be told it is Any; that an
array may turn out to have no axis, and its result to be a scalar, is left out of account.
"""

# mypy: disable-error-code="overload-overlap"
# (To mypy, NumPy's floating types overlap each other.)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, overload

import numpy as np
import numpy.typing as npt
from numpy.typing import DTypeLike, NDArray


class SupportsDLPack(Protocol):
    """A tensor of another library."""

    def __dlpack__(self) -> Any: ...


ArrayLike: TypeAlias = npt.ArrayLike | SupportsDLPack
Axes: TypeAlias = int | tuple[int, ...]
Axis: TypeAlias = Axes | None

# What gives float64: that, integers, booleans, Python's numbers, and nested sequences of these.
Doubles: TypeAlias = "NDArray[np.float64 | np.integer[Any] | np.bool_] | Numbers"
Numbers: TypeAlias = "Sequence[float | Numbers]"
Number: TypeAlias = float | np.integer[Any] | np.bool_

Out = TypeVar("Out", bound=NDArray[Any])
Float = TypeVar("Float", bound=np.floating[Any])
DType: TypeAlias = type[Float] | np.dtype[Float]
Threads: TypeAlias = int | None


# fmt: off Tables, in which one looks for what differs from line to line. The first overload that
# fits counts. float32 and float64 have their own because mypy would take a type variable from the
# declared type of the result, not fit the argument, and be content with the last overload, which
# returns Any.


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
        x: NDArray[np.float32],
        axis: Axis = ...,
        *,
        temperature: ArrayLike = ...,
        base: float | None = ...,
        where: ArrayLike | None = ...,
        out: None = ...,
        dtype: None = ...,
        num_threads: Threads = ...,
    ) -> NDArray[np.float32]: ...
    @overload
    def __call__(
        self,
        x: Doubles,
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


class Normalization(Protocol):
    """square_normalize and its like: likewise, with a mask for the only option."""

    @overload
    def __call__(
        self,
        x: ArrayLike,
        axis: Axis = ...,
        *,
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
        where: ArrayLike | None = ...,
        out: None = ...,
        dtype: DType[Float],
        num_threads: Threads = ...,
    ) -> NDArray[Float]: ...
    @overload
    def __call__(
        self,
        x: NDArray[np.float32],
        axis: Axis = ...,
        *,
        where: ArrayLike | None = ...,
        out: None = ...,
        dtype: None = ...,
        num_threads: Threads = ...,
    ) -> NDArray[np.float32]: ...
    @overload
    def __call__(
        self,
        x: Doubles,
        axis: Axis = ...,
        *,
        where: ArrayLike | None = ...,
        out: None = ...,
        dtype: None = ...,
        num_threads: Threads = ...,
    ) -> NDArray[np.float64]: ...
    @overload
    def __call__(
        self,
        x: NDArray[Float],
        axis: Axis = ...,
        *,
        where: ArrayLike | None = ...,
        out: None = ...,
        dtype: None = ...,
        num_threads: Threads = ...,
    ) -> NDArray[Float]: ...
    @overload
    def __call__(
        self,
        x: ArrayLike,
        axis: Axis = ...,
        *,
        where: ArrayLike | None = ...,
        out: NDArray[Any] | None = ...,
        dtype: DTypeLike | None = ...,
        num_threads: Threads = ...,
    ) -> Any: ...


class Reduction(Protocol):
    """logsumexp and its like: a result for every row, float32 for float16."""

    @overload
    def __call__(
        self,
        x: ArrayLike,
        axis: Axis = ...,
        *,
        b: ArrayLike | None = ...,
        keepdims: bool = ...,
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
        axis: None,
        *,
        b: ArrayLike | None = ...,
        keepdims: Literal[False] = ...,
        base: float | None = ...,
        where: ArrayLike | None = ...,
        out: None = ...,
        dtype: DType[Float],
        num_threads: Threads = ...,
    ) -> Float: ...
    @overload
    def __call__(
        self,
        x: NDArray[np.float32 | np.float16],
        axis: None,
        *,
        b: ArrayLike | None = ...,
        keepdims: Literal[False] = ...,
        base: float | None = ...,
        where: ArrayLike | None = ...,
        out: None = ...,
        dtype: None = ...,
        num_threads: Threads = ...,
    ) -> np.float32: ...
    @overload
    def __call__(
        self,
        x: Doubles,
        axis: None,
        *,
        b: ArrayLike | None = ...,
        keepdims: Literal[False] = ...,
        base: float | None = ...,
        where: ArrayLike | None = ...,
        out: None = ...,
        dtype: None = ...,
        num_threads: Threads = ...,
    ) -> np.float64: ...
    @overload
    def __call__(
        self,
        x: NDArray[np.longdouble],
        axis: None,
        *,
        b: ArrayLike | None = ...,
        keepdims: Literal[False] = ...,
        base: float | None = ...,
        where: ArrayLike | None = ...,
        out: None = ...,
        dtype: None = ...,
        num_threads: Threads = ...,
    ) -> np.longdouble: ...
    @overload
    def __call__(
        self,
        x: NDArray[Any] | Numbers,
        axis: Axes = ...,
        *,
        b: ArrayLike | None = ...,
        keepdims: bool = ...,
        base: float | None = ...,
        where: ArrayLike | None = ...,
        out: None = ...,
        dtype: DType[Float],
        num_threads: Threads = ...,
    ) -> NDArray[Float]: ...
    @overload
    def __call__(
        self,
        x: NDArray[np.float32 | np.float16],
        axis: Axes = ...,
        *,
        b: ArrayLike | None = ...,
        keepdims: bool = ...,
        base: float | None = ...,
        where: ArrayLike | None = ...,
        out: None = ...,
        dtype: None = ...,
        num_threads: Threads = ...,
    ) -> NDArray[np.float32]: ...
    @overload
    def __call__(
        self,
        x: Doubles,
        axis: Axes = ...,
        *,
        b: ArrayLike | None = ...,
        keepdims: bool = ...,
        base: float | None = ...,
        where: ArrayLike | None = ...,
        out: None = ...,
        dtype: None = ...,
        num_threads: Threads = ...,
    ) -> NDArray[np.float64]: ...
    @overload
    def __call__(
        self,
        x: NDArray[np.longdouble],
        axis: Axes = ...,
        *,
        b: ArrayLike | None = ...,
        keepdims: bool = ...,
        base: float | None = ...,
        where: ArrayLike | None = ...,
        out: None = ...,
        dtype: None = ...,
        num_threads: Threads = ...,
    ) -> NDArray[np.longdouble]: ...
    @overload
    def __call__(
        self,
        x: ArrayLike,
        axis: Axis = ...,
        *,
        b: ArrayLike | None = ...,
        keepdims: bool = ...,
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
        self,
        x: NDArray[Any] | Numbers,
        *,
        out: None = ...,
        dtype: DType[Float],
        num_threads: Threads = ...,
    ) -> NDArray[Float]: ...
    @overload
    def __call__(
        self,
        x: NDArray[np.float32],
        *,
        out: None = ...,
        dtype: None = ...,
        num_threads: Threads = ...,
    ) -> NDArray[np.float32]: ...
    @overload
    def __call__(
        self, x: Doubles, *, out: None = ..., dtype: None = ..., num_threads: Threads = ...
    ) -> NDArray[np.float64]: ...
    @overload
    def __call__(
        self, x: NDArray[Float], *, out: None = ..., dtype: None = ..., num_threads: Threads = ...
    ) -> NDArray[Float]: ...
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


class OfProbabilities(Protocol):
    """logit and its like, elementwise too."""

    @overload
    def __call__(
        self, p: ArrayLike, *, out: Out, dtype: DTypeLike | None = ..., num_threads: Threads = ...
    ) -> Out: ...
    @overload
    def __call__(
        self,
        p: NDArray[Any] | Numbers,
        *,
        out: None = ...,
        dtype: DType[Float],
        num_threads: Threads = ...,
    ) -> NDArray[Float]: ...
    @overload
    def __call__(
        self,
        p: NDArray[np.float32],
        *,
        out: None = ...,
        dtype: None = ...,
        num_threads: Threads = ...,
    ) -> NDArray[np.float32]: ...
    @overload
    def __call__(
        self, p: Doubles, *, out: None = ..., dtype: None = ..., num_threads: Threads = ...
    ) -> NDArray[np.float64]: ...
    @overload
    def __call__(
        self, p: NDArray[Float], *, out: None = ..., dtype: None = ..., num_threads: Threads = ...
    ) -> NDArray[Float]: ...
    @overload
    def __call__(
        self, p: Float, *, out: None = ..., dtype: None = ..., num_threads: Threads = ...
    ) -> Float: ...
    @overload
    def __call__(
        self, p: Number, *, out: None = ..., dtype: None = ..., num_threads: Threads = ...
    ) -> np.float64: ...
    @overload
    def __call__(
        self,
        p: ArrayLike,
        *,
        out: NDArray[Any] | None = ...,
        dtype: DTypeLike | None = ...,
        num_threads: Threads = ...,
    ) -> Any: ...


class ActivationVjp(Protocol):
    """The gradient of softmax and its like."""

    @overload
    def __call__(
        self,
        g: ArrayLike,
        y: ArrayLike,
        axis: Axis = ...,
        *,
        temperature: ArrayLike = ...,
        out: Out,
        num_threads: Threads = ...,
    ) -> Out: ...
    @overload
    def __call__(
        self,
        g: NDArray[np.float32],
        y: NDArray[np.float32],
        axis: Axis = ...,
        *,
        temperature: ArrayLike = ...,
        out: None = ...,
        num_threads: Threads = ...,
    ) -> NDArray[np.float32]: ...
    @overload
    def __call__(
        self,
        g: Doubles,
        y: Doubles,
        axis: Axis = ...,
        *,
        temperature: ArrayLike = ...,
        out: None = ...,
        num_threads: Threads = ...,
    ) -> NDArray[np.float64]: ...
    @overload
    def __call__(
        self,
        g: NDArray[Float],
        y: NDArray[Float],
        axis: Axis = ...,
        *,
        temperature: ArrayLike = ...,
        out: None = ...,
        num_threads: Threads = ...,
    ) -> NDArray[Float]: ...
    @overload
    def __call__(
        self,
        g: ArrayLike,
        y: ArrayLike,
        axis: Axis = ...,
        *,
        temperature: ArrayLike = ...,
        out: NDArray[Any] | None = ...,
        num_threads: Threads = ...,
    ) -> Any: ...


class NormalizationVjp(Protocol):
    """The gradient of square_normalize and its like, from the input."""

    @overload
    def __call__(
        self, g: ArrayLike, x: ArrayLike, axis: Axis = ..., *, out: Out, num_threads: Threads = ...
    ) -> Out: ...
    @overload
    def __call__(
        self,
        g: NDArray[np.float32],
        x: NDArray[np.float32],
        axis: Axis = ...,
        *,
        out: None = ...,
        num_threads: Threads = ...,
    ) -> NDArray[np.float32]: ...
    @overload
    def __call__(
        self,
        g: Doubles,
        x: Doubles,
        axis: Axis = ...,
        *,
        out: None = ...,
        num_threads: Threads = ...,
    ) -> NDArray[np.float64]: ...
    @overload
    def __call__(
        self,
        g: NDArray[Float],
        x: NDArray[Float],
        axis: Axis = ...,
        *,
        out: None = ...,
        num_threads: Threads = ...,
    ) -> NDArray[Float]: ...
    @overload
    def __call__(
        self,
        g: ArrayLike,
        x: ArrayLike,
        axis: Axis = ...,
        *,
        out: NDArray[Any] | None = ...,
        num_threads: Threads = ...,
    ) -> Any: ...


class ReductionVjp(Protocol):
    """The gradient of logsumexp and its like, of the dtype of `x` whatever that of `g`."""

    @overload
    def __call__(
        self, g: ArrayLike, x: ArrayLike, axis: Axis = ..., *, out: Out, num_threads: Threads = ...
    ) -> Out: ...
    @overload
    def __call__(
        self,
        g: ArrayLike,
        x: NDArray[np.float32],
        axis: Axis = ...,
        *,
        out: None = ...,
        num_threads: Threads = ...,
    ) -> NDArray[np.float32]: ...
    @overload
    def __call__(
        self,
        g: ArrayLike,
        x: Doubles,
        axis: Axis = ...,
        *,
        out: None = ...,
        num_threads: Threads = ...,
    ) -> NDArray[np.float64]: ...
    @overload
    def __call__(
        self,
        g: ArrayLike,
        x: NDArray[Float],
        axis: Axis = ...,
        *,
        out: None = ...,
        num_threads: Threads = ...,
    ) -> NDArray[Float]: ...
    @overload
    def __call__(
        self,
        g: ArrayLike,
        x: ArrayLike,
        axis: Axis = ...,
        *,
        out: NDArray[Any] | None = ...,
        num_threads: Threads = ...,
    ) -> Any: ...


class ElementwiseVjp(Protocol):
    """The gradient of an elementwise function, from its input."""

    @overload
    def __call__(
        self, g: ArrayLike, x: ArrayLike, *, out: Out, num_threads: Threads = ...
    ) -> Out: ...
    @overload
    def __call__(
        self,
        g: NDArray[np.float32],
        x: NDArray[np.float32],
        *,
        out: None = ...,
        num_threads: Threads = ...,
    ) -> NDArray[np.float32]: ...
    @overload
    def __call__(
        self, g: Doubles, x: Doubles, *, out: None = ..., num_threads: Threads = ...
    ) -> NDArray[np.float64]: ...
    @overload
    def __call__(
        self, g: NDArray[Float], x: NDArray[Float], *, out: None = ..., num_threads: Threads = ...
    ) -> NDArray[Float]: ...
    @overload
    def __call__(
        self,
        g: ArrayLike,
        x: ArrayLike,
        *,
        out: NDArray[Any] | None = ...,
        num_threads: Threads = ...,
    ) -> Any: ...


class ElementwiseVjpOfOutput(Protocol):
    """The gradient of an elementwise function, from its output."""

    @overload
    def __call__(
        self, g: ArrayLike, y: ArrayLike, *, out: Out, num_threads: Threads = ...
    ) -> Out: ...
    @overload
    def __call__(
        self,
        g: NDArray[np.float32],
        y: NDArray[np.float32],
        *,
        out: None = ...,
        num_threads: Threads = ...,
    ) -> NDArray[np.float32]: ...
    @overload
    def __call__(
        self, g: Doubles, y: Doubles, *, out: None = ..., num_threads: Threads = ...
    ) -> NDArray[np.float64]: ...
    @overload
    def __call__(
        self, g: NDArray[Float], y: NDArray[Float], *, out: None = ..., num_threads: Threads = ...
    ) -> NDArray[Float]: ...
    @overload
    def __call__(
        self,
        g: ArrayLike,
        y: ArrayLike,
        *,
        out: NDArray[Any] | None = ...,
        num_threads: Threads = ...,
    ) -> Any: ...


# fmt: on


def activation(function: Activation) -> Activation:
    """Decorate a function that keeps the promises of `Activation`."""
    return function


def normalization(function: Normalization) -> Normalization:
    """Decorate a function that keeps the promises of `Normalization`."""
    return function


def reduction(function: Reduction) -> Reduction:
    """Decorate a function that keeps the promises of `Reduction`."""
    return function


def elementwise(function: Elementwise) -> Elementwise:
    """Decorate a function that keeps the promises of `Elementwise`."""
    return function


def of_probabilities(function: OfProbabilities) -> OfProbabilities:
    """Decorate a function that keeps the promises of `OfProbabilities`."""
    return function


def activation_vjp(function: ActivationVjp) -> ActivationVjp:
    """Decorate a function that keeps the promises of `ActivationVjp`."""
    return function


def normalization_vjp(function: NormalizationVjp) -> NormalizationVjp:
    """Decorate a function that keeps the promises of `NormalizationVjp`."""
    return function


def reduction_vjp(function: ReductionVjp) -> ReductionVjp:
    """Decorate a function that keeps the promises of `ReductionVjp`."""
    return function


def elementwise_vjp(function: ElementwiseVjp) -> ElementwiseVjp:
    """Decorate a function that keeps the promises of `ElementwiseVjp`."""
    return function


def elementwise_vjp_of_output(function: ElementwiseVjpOfOutput) -> ElementwiseVjpOfOutput:
    """Decorate a function that keeps the promises of `ElementwiseVjpOfOutput`."""
    return function
