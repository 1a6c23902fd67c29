"""What the documents say is so: their Python sessions run, their links lead somewhere,
the examples work.
"""

import doctest
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXTS = [
    ROOT / "README.md",
    *ROOT.glob("C*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("benchmarks/*.md"),
]
TEXTS += ROOT.glob("fastsoftmax/kernels/*.md")


def runnable(path):
    """Whether everything that an example imports is installed."""
    text = path.read_text(encoding="utf-8")
    modules = re.findall(r"^import (\w+)|^from (\w+)[\w.]* import ", text, flags=re.MULTILINE)
    return all(importlib.util.find_spec(plain or parent) for plain, parent in modules)


DOCUMENTS = [*TEXTS, *filter(runnable, ROOT.glob("examples/*.py"))]


def sessions(text):
    """The Python blocks of a Markdown text, on the lines where they are."""
    blocks = re.split(r"^(```.*)$", text, flags=re.MULTILINE)
    kept, inside = [], False
    for block in blocks:
        if block.startswith("```"):
            inside = block == "```python"
            kept.append("")
        else:
            kept.append(block if inside else "\n" * block.count("\n"))
    return "".join(kept)


def run_sessions(path):
    text = sessions(path.read_text(encoding="utf-8"))
    test = doctest.DocTestParser().get_doctest(text, {}, path.name, str(path), 0)
    report: list[str] = []
    runner = doctest.DocTestRunner()
    runner.run(test, out=report.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)


def check_links(path):
    links = re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8"))
    missing = [link for link in links if ":" not in link and not (path.parent / link).exists()]
    assert not missing


def comparable(line):
    """A line of output without the space at its end; without its figures if it holds a time in
    seconds.

    Times differ, and so do the models of different versions of the libraries that are timed.
    """
    return (
        re.sub(r"[\d.]+", "0", line.rstrip())
        if re.search(r"\d s$", line.rstrip())
        else line.rstrip()
    )


def run_example(path):
    """An example succeeds, and prints what its last lines, a comment, say."""
    command = [sys.executable, "-W", "error", str(path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    _, _, expected = path.read_text(encoding="utf-8").partition("\n# Output:\n")
    printed = [comparable(f"# {line}") for line in done.stdout.splitlines()]
    assert printed == [comparable(line) for line in expected.splitlines()]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_document(path):
    if path.suffix == ".py":
        run_example(path)
    else:
        run_sessions(path)
        check_links(path)


def test_times_are_not_compared():
    assert (
        comparable("# loss 0.25, in 0.21 s ")
        == comparable("# loss 0.26, in 10 s")
        != comparable("# loss")
    )
    assert comparable("# loss 0.25") != comparable("# loss 0.26")


def test_sessions_keep_their_lines():
    text = "Text\n```python\n>>> 1\n1\n```\n\n```sh\n>>> no\n```\n"
    assert sessions(text).splitlines() == ["", "", ">>> 1", "1", "", "", "", "", ""]
