"""Tables in documents, which the scripts that measure them replace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

BEGIN, END = "<!-- figures: python benchmarks/{} --into FILE -->", "<!-- end of figures -->"


def line(cells: Sequence[str]) -> str:
    """A row of a table."""
    return f"| {' | '.join(cells)} |"


def insert(script: str, lines: Sequence[str], path: Path) -> None:
    """Replace what stands between the two marks of a script in a file."""
    begin = BEGIN.format(script)
    before, found, rest = path.read_text(encoding="utf-8").partition(begin)
    _, mark, after = rest.partition(END)
    if not found or not mark:
        raise SystemExit(f"{path} has no lines {begin!r} and {END!r}")
    text = "\n".join(lines)
    path.write_text(f"{before}{begin}\n{text}\n{END}{after}", encoding="utf-8")
