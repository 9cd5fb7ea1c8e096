"""Pairs of comment and code, found in source files.

Python that parses gives its functions and classes with a docstring. In any other text, and in Python without
docstrings, a block of comment lines directly above a block of code is a pair. Nothing is guessed from names, so the
same text gives the same pairs.
"""

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator
from typing import Final

SHORTEST_COMMENT_WORDS: Final = 3
"""A comment of fewer words says too little to write code from."""

LONGEST_COMMENT_CHARS: Final = 2_000
"""A longer comment is documentation of more than the code below it."""

SHORTEST_CODE_LINES: Final = 2
"""Code of fewer lines (without empty ones) is a value or a declaration."""

LONGEST_CODE_CHARS: Final = 8_000
"""Longer code does more than a comment can say."""

LINE_MARKS: Final = ("///", "//!", "//", "#", "--", ";;")
"""What begins a comment line, the longer before the shorter that it begins with."""

NO_COMMENTS: Final = re.compile(
    r"#!|#\s*(include|define|if|ifdef|ifndef|endif|else|elif|pragma|undef|error|import|region|endregion)\b|#\[|--\[\[|---"
)
"""What looks like a comment line and is none: a shebang, C's preprocessor, Rust's attributes, Lua's blocks, YAML's
document mark."""

NO_PROSE: Final = re.compile(
    r"copyright|licen[sc]e|spdx|all rights reserved|noqa|eslint|pylint|type:\s*ignore|-\*-|vim?:|"
    r"generated (by|from|automatically)|do not edit",
    re.IGNORECASE,
)
"""Comments that say nothing about the code below them."""

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def mine_pairs(text: str) -> list[tuple[str, str]]:
    """Comments and the code they are about, in the order of the text; none is given twice."""
    found = _python_pairs(text) or _block_pairs(text.splitlines())
    return list(dict.fromkeys(pair for pair in found if _is_useful(*pair)))


def _is_useful(comment: str, code: str) -> bool:
    """Whether the comment is prose of a usable length, and the code more than a declaration."""
    return (
        len(re.findall(r"[^\W\d_]{2,}", comment)) >= SHORTEST_COMMENT_WORDS
        and len(comment) <= LONGEST_COMMENT_CHARS
        and len(code) <= LONGEST_CODE_CHARS
        and sum(bool(line.strip()) for line in code.splitlines()) >= SHORTEST_CODE_LINES
        and not NO_PROSE.search(comment)
    )


def _python_pairs(text: str) -> list[tuple[str, str]]:
    """Docstrings and definitions without them; none for a text that is not Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in somebody's strings
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    lines = _lines_of(text)
    pairs = []
    for node in _definitions(tree):
        docstring = ast.get_docstring(node)
        if docstring and (code := _without_docstring(node, lines)):
            pairs.append((docstring, code))
    return pairs


def _lines_of(text: str) -> list[str]:
    """Lines as Python's parser counts them: a form feed ends none."""
    return re.split(r"\r\n|\r|\n", text)


def _definitions(tree: ast.Module) -> Iterator[Definition]:
    """Functions and classes, the outer before the inner, in the order of the text."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Definition):
            yield node
        waiting.extend(reversed(list(ast.iter_child_nodes(node))))


def _without_docstring(node: Definition, lines: list[str]) -> str | None:
    """The source of a definition; None where it is only a docstring, or shares lines with something else."""
    docstring = node.body[0]
    begins = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    ends, last = node.end_lineno, docstring.end_lineno
    if ends is None or last is None or len(node.body) == 1:
        return None
    if docstring.lineno == node.body[1].lineno or docstring.lineno <= node.lineno or last >= node.body[1].lineno:
        return None
    code = [*lines[begins - 1 : docstring.lineno - 1], *_unled(lines[last:ends])]
    indent = code[0][: len(code[0]) - len(code[0].lstrip())]
    return "\n".join(line.removeprefix(indent) for line in code)  # lines of a string may be further left than the code


def _unled(lines: list[str]) -> list[str]:
    """Lines from the first that is not empty on."""
    first = next((n for n, line in enumerate(lines) if line.strip()), len(lines))
    return lines[first:]


def _block_pairs(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Comment blocks, each with the block of code right below it."""
    indents = _indents(lines)
    place = 0
    while place < len(lines):
        comment, after = _comment_at(lines, place)
        end = _code_end(lines, indents, after) if comment else after
        if end > after:
            yield "\n".join(comment).strip(), textwrap.dedent("\n".join(lines[after:end])).strip("\n")
        place = max(after, place + 1)


def _comment_at(lines: list[str], place: int) -> tuple[list[str], int]:
    """The comment that begins in a line, without its marks, and the line after it."""
    if lines[place].lstrip().startswith("/*"):
        return _starred(lines, place)
    comment: list[str] = []
    mark = _mark(lines[place])
    while mark and place < len(lines) and _mark(lines[place]) == mark:
        comment.append(lines[place].strip().removeprefix(mark).strip())
        place += 1
    return comment, place


def _mark(line: str) -> str | None:
    """What makes a line a comment; None for code."""
    text = line.strip()
    if NO_COMMENTS.match(text):
        return None
    return next((mark for mark in LINE_MARKS if text.startswith(mark)), None)


def _starred(lines: list[str], place: int) -> tuple[list[str], int]:
    """A comment between `/*` and `*/`; none where it does not end, or where code follows in its last line."""
    for end in range(place, len(lines)):
        before, closed, behind = lines[end].partition("*/")
        if closed:
            if behind.strip():
                return [], end + 1
            inside = [*lines[place:end], before]
            return [re.sub(r"^\s*(/\*+!?|\*+)?\s?", "", line).strip() for line in inside], end + 1
    return [], len(lines)


def _code_end(lines: list[str], indents: list[int], start: int) -> int:
    """The line after a block of code, which ends before an empty line, a comment or the end of what is around it, at
    the indentation of its first line.
    """
    if start >= len(lines) or not lines[start].strip() or _is_comment(lines[start]):
        return start
    own = indents[start]
    end = start + 1
    while end < len(lines) and indents[end] >= own:
        if indents[end] == own and (not lines[end].strip() or _is_comment(lines[end])):
            break
        end += 1
    while not lines[end - 1].strip():
        end -= 1
    return end


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("/*") or _mark(line) is not None


def _indents(lines: list[str]) -> list[int]:
    """Columns before the first character of each line; an empty one has those of the next that is not."""
    found = [0] * len(lines)
    following = 0
    for place in range(len(lines) - 1, -1, -1):
        text = lines[place].expandtabs(4)
        if text.strip():
            following = len(text) - len(text.lstrip())
        found[place] = following
    return found
