"""Names, signatures, documentation, and what an import needs."""

import ast
import doctest
import importlib.resources
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cases import CASES, WITH_VJP
from losses import SIGNATURES as LOSSES
from readers import READERS
from sizes import exhaustive

import fastsoftmax

PACKAGE = {
    "config": "()",
    "show_config": "()",
    "use_backend": "(name)",
    "set_buffer_pool": "(nbytes)",
    "set_num_threads": "(n)",
    "get_num_threads": "()",
}
SIGNATURES = (
    {case.name: case.signature for case in CASES}
    | {case.vjp: case.vjp_signature for case in WITH_VJP}
    | LOSSES
    | {reader.name: reader.signature for reader in READERS}
    | PACKAGE
)
OPERATIONS = [name for name in SIGNATURES if name not in PACKAGE]


LAYERS = [
    "_backend",
    "_threads",
    "_memory",
    "_reference",
    "_views",
    "_inputs",
    "_parameters",
    "_outputs",
    "_call",
    "_targets",
    "_losses",
    "ops",
]  # from the bottom up


def imported(path):
    """The modules of the package that a file imports, relatively to it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield from [node.module] if node.module else [name.name for name in node.names]


def test_layers():
    """Modules that settle arguments import what is below them, so that there are no circles."""
    for place, name in enumerate(LAYERS[:-1]):
        found = set(imported(Path(fastsoftmax.__file__).parent / f"{name}.py"))
        assert found <= set(LAYERS[:place]), name


def test_all():
    assert set(fastsoftmax.__all__) - {"__version__"} == set(SIGNATURES)
    assert len(set(fastsoftmax.__all__)) == len(fastsoftmax.__all__)
    assert all(hasattr(fastsoftmax, name) for name in fastsoftmax.__all__)


def test_version():
    assert re.fullmatch(r"\d+\.\d+(\.\d+)?((a|b|rc|\.dev)\d+)?", fastsoftmax.__version__)
    assert fastsoftmax.config()["version"] == fastsoftmax.__version__


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name):
    signature = inspect.signature(getattr(fastsoftmax, name))
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    plain = signature.replace(parameters=plain, return_annotation=inspect.Signature.empty)
    assert str(plain) == SIGNATURES[name]


def sections(docstring):
    """Section titles of a numpydoc docstring and their text."""
    lines = inspect.cleandoc(docstring).splitlines()
    starts = [i for i in range(len(lines) - 1) if lines[i + 1] and set(lines[i + 1]) == {"-"}]
    ends = [*starts[1:], len(lines)]
    return {lines[i]: "\n".join(lines[i + 2 : end]) for i, end in zip(starts, ends, strict=True)}


@pytest.mark.parametrize("name", OPERATIONS)
def test_documentation(name):
    function = getattr(fastsoftmax, name)
    docstring = inspect.cleandoc(function.__doc__)
    found = sections(docstring)
    assert {"Parameters", "Returns", "Examples"} <= set(found)
    assert docstring.splitlines()[0].endswith(".")
    assert "\n" not in docstring.split("\n\n")[0]
    documented = re.findall(r"^(\w[\w, ]*?)(?: :.*)?$", found["Parameters"], re.MULTILINE)
    documented = [part for line in documented for part in line.split(", ")]
    assert documented == list(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", SIGNATURES)
def test_examples_in_the_documentation(name, backend):
    function = getattr(fastsoftmax, name)
    namespace = {"np": np, "fs": fastsoftmax, "fastsoftmax": fastsoftmax, name: function}
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    found = [
        test
        for test in doctest.DocTestFinder(recurse=False).find(function, name, globs=namespace)
        if test.examples
    ]
    assert found or name in PACKAGE
    with np.printoptions(legacy=False):
        for test in found:
            runner.run(test)
    assert runner.failures == 0


def test_every_name_has_a_docstring():
    for name in SIGNATURES:
        assert len(getattr(fastsoftmax, name).__doc__) > 30


def test_names_belong_to_the_package():
    """Tracebacks, help() and pickle show or need a module that exists."""
    for name in OPERATIONS:
        function = getattr(fastsoftmax, name)
        assert function.__name__ == name
        module = sys.modules[function.__module__]
        assert getattr(module, name) is function


def test_types_are_shipped():
    assert importlib.resources.files(fastsoftmax).joinpath("py.typed").is_file()
    for name in OPERATIONS:
        signature = inspect.signature(getattr(fastsoftmax, name))
        assert signature.return_annotation is not inspect.Signature.empty, name
        assert all(p.annotation is not p.empty for p in signature.parameters.values()), name


NUMPY_ALONE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names | {"numpy", "fastsoftmax"}:
            raise ImportError(f"{name} is not allowed here")

import numpy
before = set(sys.modules)
sys.meta_path.insert(0, Refuse())
import fastsoftmax
assert abs(fastsoftmax.softmax([1.0, 2.0]).sum() - 1) < 1e-15
assert fastsoftmax.softmax(numpy.zeros(4, numpy.float16)).dtype == numpy.float16
print(sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""


def run_python(code, **environment):
    """Run code in a fresh interpreter that finds the same packages."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": paths} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


BEST, *OTHERS = fastsoftmax.config()["backends"]


@pytest.mark.parametrize("name", [BEST, *(pytest.param(n, marks=exhaustive) for n in OTHERS)])
def test_import_needs_numpy_alone(name):
    done = run_python(NUMPY_ALONE, FASTSOFTMAX_BACKEND=name)
    assert done.returncode == 0, done.stderr
    assert "fastsoftmax" in done.stdout


def test_import_is_quiet_and_strict():
    strict = "import warnings, numpy; warnings.simplefilter('error'); numpy.seterr(all='raise')"
    done = run_python(f"{strict}; import fastsoftmax")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
