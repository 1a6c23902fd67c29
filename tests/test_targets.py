"""The script that tells which targets are met: its verdicts and its tables. CI does not measure."""

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """Import a script of benchmarks/ as if it ran there;
    forget it and what it imports there afterwards.
    """
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("documents", "memory", "quiet", "targets"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if (
            getattr(sys.modules[name], "__file__", None)
            and Path(sys.modules[name].__file__).parent == FOLDER
        ):
            del sys.modules[name]


def test_the_worst_figure_decides(script):
    targets = script("targets")
    details = [targets.Detail("a", 4.0), targets.Detail("b", 1.0)]
    found = targets.at_least("row", "what", 1.0, details, mean=2.0)
    assert (found.shown, found.target, found.met) == (
        "1.0 (b); geometric mean of 2: 2.0",
        "≥ 1, mean ≥ 2",
        "yes",
    )
    assert targets.at_least("row", "what", 1.0, details, mean=2.1).met == "no"
    assert targets.at_least("row", "what", 1.1, details).met == "no"
    assert targets.at_most("row", "what", 4.0, details).met == "yes"
    assert targets.at_most("row", "what", 3.9, details, unit=" MiB").shown == "4.0 MiB (a)"
    assert targets.at_most("row", "what", 3.9, details).met == "no"
    assert targets.at_most("row", "what", 1.0, []).met == "-"


def test_no_verdict_on_threads_while_others_run(script, monkeypatch):
    targets = script("targets")
    missed = targets.at_least("threads", "what", 1.8, [targets.Detail("a", 0.1)])
    monkeypatch.setattr(targets, "two_cores_are_free", lambda patience: False)
    assert targets.undisturbed(missed).met == "disturbed"
    monkeypatch.setattr(targets, "two_cores_are_free", lambda patience: True)
    assert targets.undisturbed(missed).met == "no"


def test_tables_are_replaced(script, tmp_path):
    documents, path = script("documents"), tmp_path / "document.md"
    begin = documents.BEGIN.format("targets.py")
    path.write_text(f"before\n{begin}\nold\n{documents.END}\nafter\n", encoding="utf-8")
    documents.insert("targets.py", [documents.line(["a", "b"])], path)
    assert (
        path.read_text(encoding="utf-8") == f"before\n{begin}\n| a | b |\n{documents.END}\nafter\n"
    )
    with pytest.raises(SystemExit, match=r"compare\.py"):
        documents.insert("compare.py", [], path)


def test_documents_have_places_for_tables(script):
    documents = script("documents")
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(documents.BEGIN.format(name) in text for name in ("compare.py", "targets.py"))
