"""A process that computes with one library, when told to: ``python -m fastsoftmax.bench.worker
NAME``.

It first says ``{"ready": true}``, or ``{"absent": reason}`` if the library cannot be imported. Then
each line it reads is a request, ``[verb, [operation, dtype, shape, axis, out]]`` in JSON with a
verb of `ANSWERS`, and each line it writes an answer: ``{"value": number}``, ``{"missing": what}``
if the library has no such operation, or ``{"failed": error}``.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
from typing import Any, TextIO

import numpy as np

from .cases import Case
from .formulas import Call
from .losses import reference
from .measuring import largest_error, repeats_for, seconds
from .rivals import RIVALS, Missing


# few, since arrays may be large; several, since cases may take turns, too
@functools.lru_cache(maxsize=4)
def call_for(name: str, case: Case) -> tuple[Call, int]:
    """A rival's call for a case, and how often to repeat it for a sample."""
    rival = RIVALS[name]
    call = rival.make(importlib.import_module(rival.module), case, case.scores())
    return call, repeats_for(call)


def time_of(name: str, case: Case) -> float:
    """Seconds of a call; one before it brings the caches back."""
    call, repeat = call_for(name, case)
    call()
    return seconds(call, repeat)


def error_of(name: str, case: Case) -> float:
    """The largest error in ulp."""
    return largest_error(np.asarray(call_for(name, case)[0]()), reference(case))


ANSWERS = {"time": time_of, "error": error_of}


def answer(name: str, request: str) -> dict[str, Any]:
    verb, (operation, dtype, shape, axis, out) = json.loads(request)
    try:
        return {"value": ANSWERS[verb](name, Case(operation, dtype, tuple(shape), axis, out))}
    except Missing as error:
        return {"missing": str(error)}
    # of whatever kind: one case that a library cannot do must not end the others
    except Exception as error:
        return {"failed": describe(error)}


def describe(error: BaseException) -> str:
    """Kind and first line of an error."""
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}".removesuffix(": ")


def greeting(name: str) -> dict[str, Any]:
    """Import the library."""
    try:
        importlib.import_module(RIVALS[name].module)
    except Exception as error:  # an installation may be broken in any way
        return {"absent": describe(error)}
    return {"ready": True}


def private_output() -> TextIO:
    """The standard output for answers alone: what a library prints goes to the standard error."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def main(name: str) -> None:
    with private_output() as answers:
        print(json.dumps(greeting(name)), file=answers, flush=True)
        for request in sys.stdin:
            print(json.dumps(answer(name, request)), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
