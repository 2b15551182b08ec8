"""The messages of all errors that the package raises on purpose, read from its source.

Read from the syntax tree, not from running code: a message stands there with ``…`` wherever a value
is filled in.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import millie
from millie import errors

GAP = "…"
_ERRORS = {
    name for name, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.MillieError)
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Message:
    """A message and the name of the class that carries it."""

    error: str
    text: str


def raised_messages() -> Iterator[Message]:
    """Every call of one of our error classes whose first argument is a text."""
    for path in sorted(Path(millie.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                name, text = node.func.id, _text(node.args[0]) if node.args else None
                if name in _ERRORS and text and text.strip(f"{GAP} :;,"):
                    yield Message(name, text)


def _text(node: ast.expr) -> str | None:
    """A literal with its gaps; None where the message is made elsewhere."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or GAP for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = [_text(side) or GAP for side in (node.left, node.right)]
        return "".join(parts) if parts != [GAP, GAP] else None
    return None
