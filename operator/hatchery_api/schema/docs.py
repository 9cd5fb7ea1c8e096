"""Docstrings of enum members, which Python does not keep: the reference pages and the CLI quote them."""

import ast
import inspect
import textwrap
from enum import Enum


def member_docs(enum: type[Enum]) -> dict[str, str]:
    """The docstring below each member of an enum, by the member's name."""
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(enum))).body
    if not isinstance(definition, ast.ClassDef):
        raise TypeError(f"{enum} is no class")
    docs: dict[str, str] = {}
    for member, text in zip(definition.body, definition.body[1:], strict=False):
        match member, text:
            case ast.Assign(targets=[ast.Name(id=name)]), ast.Expr(value=ast.Constant(value=str(doc))):
                docs[name] = " ".join(doc.split())
    return docs
