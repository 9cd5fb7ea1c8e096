"""Mines pairs of comment and code from source files.

Python that parses yields its functions and classes with a docstring. In any other text, and in Python without
docstrings, a block of comment lines directly above a block of code is a pair. File names play no part, so equal texts
give equal pairs.
"""

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator
from typing import Final

SHORTEST_COMMENT_WORDS: Final = 3
"""Comments of fewer words say too little to write code from."""

LONGEST_COMMENT_CHARS: Final = 2_000
"""Longer comments document more than the code below them."""

SHORTEST_CODE_LINES: Final = 2
"""Code of fewer non-empty lines is a value or a declaration."""

LONGEST_CODE_CHARS: Final = 8_000
"""Longer code does more than a comment can describe."""

LINE_MARKS: Final = ("///", "//!", "//", "#", "--", ";;")
"""Markers of comment lines; a marker precedes its own prefixes."""

NOT_COMMENTS: Final = re.compile(
    r"#!|#\s*(include|define|if|ifdef|ifndef|endif|else|elif|pragma|undef|error|import|region|endregion)\b|#\[|--\[\[|---"
)
"""Lines that only look like comments: shebangs, C's preprocessor, Rust's attributes, Lua's blocks, YAML's document
marker."""

NOT_PROSE: Final = re.compile(
    r"copyright|licen[sc]e|spdx|all rights reserved|noqa|eslint|pylint|type:\s*ignore|-\*-|vim?:|"
    r"generated (by|from|automatically)|do not edit",
    re.IGNORECASE,
)
"""Comments that do not describe the code below them."""

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def mine_pairs(text: str) -> list[tuple[str, str]]:
    """Comments and the code they describe, in the order of the text, without duplicates."""
    pairs = _python_pairs(text) or _block_pairs(text.splitlines())
    return list(dict.fromkeys(pair for pair in pairs if _is_useful(*pair)))


def _is_useful(comment: str, code: str) -> bool:
    """Whether the comment is prose of a usable length, and the code more than a declaration."""
    return (
        len(re.findall(r"[^\W\d_]{2,}", comment)) >= SHORTEST_COMMENT_WORDS
        and len(comment) <= LONGEST_COMMENT_CHARS
        and len(code) <= LONGEST_CODE_CHARS
        and sum(bool(line.strip()) for line in code.splitlines()) >= SHORTEST_CODE_LINES
        and not NOT_PROSE.search(comment)
    )


def _python_pairs(text: str) -> list[tuple[str, str]]:
    """Docstrings and definitions without them; empty for text that is not Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in string literals
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
    """Lines as Python's parser counts them: a form feed does not end a line."""
    return re.split(r"\r\n|\r|\n", text)


def _definitions(tree: ast.Module) -> Iterator[Definition]:
    """Functions and classes in the order of the text, outer before inner."""
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, Definition):
            yield node
        stack.extend(reversed(list(ast.iter_child_nodes(node))))


def _without_docstring(node: Definition, lines: list[str]) -> str | None:
    """The source of a definition without its docstring; None if nothing else is left or they share a line."""
    docstring = node.body[0]
    begins = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    ends, last = node.end_lineno, docstring.end_lineno
    if ends is None or last is None or len(node.body) == 1:
        return None
    if docstring.lineno == node.body[1].lineno or docstring.lineno <= node.lineno or last >= node.body[1].lineno:
        return None
    code = [*lines[begins - 1 : docstring.lineno - 1], *_without_leading_blanks(lines[last:ends])]
    indent = code[0][: len(code[0]) - len(code[0].lstrip())]
    return "\n".join(line.removeprefix(indent) for line in code)  # lines of a string may be indented less than the code


def _without_leading_blanks(lines: list[str]) -> list[str]:
    """Lines without leading empty ones."""
    first = next((n for n, line in enumerate(lines) if line.strip()), len(lines))
    return lines[first:]


def _block_pairs(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Comment blocks with the block of code directly below each."""
    indents = _indents(lines)
    place = 0
    while place < len(lines):
        comment, after = _comment_at(lines, place)
        end = _code_end(lines, indents, after) if comment else after
        if end > after:
            yield "\n".join(comment).strip(), textwrap.dedent("\n".join(lines[after:end])).strip("\n")
        place = max(after, place + 1)


def _comment_at(lines: list[str], place: int) -> tuple[list[str], int]:
    """The comment that begins in a line, without its markers, and the line after it."""
    if lines[place].lstrip().startswith("/*"):
        return _block_comment(lines, place)
    comment: list[str] = []
    mark = _mark(lines[place])
    while mark and place < len(lines) and _mark(lines[place]) == mark:
        comment.append(lines[place].strip().removeprefix(mark).strip())
        place += 1
    return comment, place


def _mark(line: str) -> str | None:
    """The comment marker of a line; None for code."""
    text = line.strip()
    if NOT_COMMENTS.match(text):
        return None
    return next((mark for mark in LINE_MARKS if text.startswith(mark)), None)


def _block_comment(lines: list[str], place: int) -> tuple[list[str], int]:
    """A comment between `/*` and `*/`; empty where it does not end, or code follows on its last line."""
    for end in range(place, len(lines)):
        before, closed, behind = lines[end].partition("*/")
        if closed:
            if behind.strip():
                return [], end + 1
            inside = [*lines[place:end], before]
            return [re.sub(r"^\s*(/\*+!?|\*+)?\s?", "", line).strip() for line in inside], end + 1
    return [], len(lines)


def _code_end(lines: list[str], indents: list[int], start: int) -> int:
    """The line after a block of code.

    The block ends before an empty line or comment at its first line's indentation, or before a smaller indentation.
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
    """Indentation of each line in columns; an empty line has that of the next non-empty one."""
    indents = [0] * len(lines)
    following = 0
    for place in range(len(lines) - 1, -1, -1):
        text = lines[place].expandtabs(4)
        if text.strip():
            following = len(text) - len(text.lstrip())
        indents[place] = following
    return indents
