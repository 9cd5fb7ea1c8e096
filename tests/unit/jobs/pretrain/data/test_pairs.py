"""Comments and their code, in several languages."""

import ast
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatchery_jobs.pretrain.data.pairs import (
    LONGEST_CODE_CHARS,
    LONGEST_COMMENT_CHARS,
    NOT_PROSE,
    SHORTEST_CODE_LINES,
    _python_pairs,
    mine_pairs,
)

LIBRARY = Path(os.__file__).parent

PYTHON = '''\
"""A module's own docstring has no code of its own."""

@cache
def area(width, height):
    """Area of a rectangle
    with two sides."""
    return width * height

class Box:
    """A box that holds
    things."""

    def open(self, force=False):
        """Open the lid of the box."""

        # a comment stays in the code
        self.lid = None
        return self

    def shut(self):
        return self

async def fetch(url):
    \'\'\'Fetch what is at a URL.\'\'\'
    text = await get(url)
    return text

def only_documented():
    """There is nothing but this docstring."""

def one_line(): """All of it in one line."""; return 1
'''


def test_docstrings_of_python_and_what_they_are_about():
    assert mine_pairs(PYTHON) == [
        ("Area of a rectangle\nwith two sides.", "@cache\ndef area(width, height):\n    return width * height"),
        (
            "A box that holds\nthings.",
            "class Box:\n"
            "    def open(self, force=False):\n"
            '        """Open the lid of the box."""\n\n'
            "        # a comment stays in the code\n"
            "        self.lid = None\n"
            "        return self\n\n"
            "    def shut(self):\n"
            "        return self",
        ),
        (
            "Open the lid of the box.",
            "def open(self, force=False):\n    # a comment stays in the code\n    self.lid = None\n    return self",
        ),
        ("Fetch what is at a URL.", "async def fetch(url):\n    text = await get(url)\n    return text"),
    ]


C = """\
#include <stdio.h>
/*
 * Adds two numbers and
 * gives back the sum.
 */
int add(int a, int b)
{
    int sum = a + b;

    return sum;
}

// Greets the whole world.
void greet(void) {
    puts("hello");  // not above anything
}
/* one line comments count */
static int numbers[] = {
    1, 2, 3,
};

// A comment that is not directly above.

int lonely(void) {
    return 1;
}
"""

GO = """\
package main

// Sum adds up all numbers,
// the negative ones too.
func Sum(numbers []int) int {
\ttotal := 0
\t// Take them one by one.
\tfor _, n := range numbers {
\t\ttotal += n
\t}
\treturn total
}
"""

SHELL = """\
#!/bin/sh
# Copies the files of a folder.
copy_all() {
  cp -r "$1" "$2"
}
"""

SQL = """\
-- All users who have ordered something.
SELECT users.name
FROM users JOIN orders ON users.id = orders.user;
"""

RUST = """\
#[derive(Debug)]
/// A point in the plane.
struct Point {
    x: f64,
    y: f64,
}
"""

LUA = """\
--[[ not a line comment ]]
-- gives the larger of two
local function max(a, b)
  if a > b then return a end
  return b
end
"""

JAVASCRIPT = """\
/**
 * Waits for some time.
 * @param {number} ms how long
 */
export const sleep = (ms) => {
  return new Promise((done) => setTimeout(done, ms));
};
"""


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        (
            C,
            [
                (
                    "Adds two numbers and\ngives back the sum.",
                    "int add(int a, int b)\n{\n    int sum = a + b;\n\n    return sum;\n}",
                ),
                (
                    "Greets the whole world.",
                    'void greet(void) {\n    puts("hello");  // not above anything\n}',
                ),
                ("one line comments count", "static int numbers[] = {\n    1, 2, 3,\n};"),
            ],
        ),
        (
            GO,
            [
                (
                    "Sum adds up all numbers,\nthe negative ones too.",
                    "func Sum(numbers []int) int {\n\ttotal := 0\n\t// Take them one by one.\n"
                    "\tfor _, n := range numbers {\n\t\ttotal += n\n\t}\n\treturn total\n}",
                ),
                ("Take them one by one.", "for _, n := range numbers {\n\ttotal += n\n}\nreturn total"),
            ],
        ),
        (SHELL, [("Copies the files of a folder.", 'copy_all() {\n  cp -r "$1" "$2"\n}')]),
        (
            SQL,
            [
                (
                    "All users who have ordered something.",
                    "SELECT users.name\nFROM users JOIN orders ON users.id = orders.user;",
                )
            ],
        ),
        (RUST, [("A point in the plane.", "struct Point {\n    x: f64,\n    y: f64,\n}")]),
        (
            LUA,
            [
                (
                    "gives the larger of two",
                    "local function max(a, b)\n  if a > b then return a end\n  return b\nend",
                )
            ],
        ),
        (
            JAVASCRIPT,
            [
                (
                    "Waits for some time.\n@param {number} ms how long",
                    "export const sleep = (ms) => {\n  return new Promise((done) => setTimeout(done, ms));\n};",
                )
            ],
        ),
        ("# says what is below it\nx = 1\ny = 2\n", [("says what is below it", "x = 1\ny = 2")]),
    ],
    ids=["c", "go", "shell", "sql", "rust", "lua", "javascript", "python without docstrings"],
)
def test_comments_above_code(text, pairs):
    assert mine_pairs(text) == pairs


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment, no code\n",
        "# too short\nint f() {\n  return 1;\n}\n",
        "// Copyright of some company, 2026\nint f() {\n  return 1;\n}\n",
        "// a declaration is not enough code\nint f(void);\n",
        "/* never closed, though it begins\nint f() {\n  return 1;\n}\n",
        "// " + "word " * 500 + "\nint f() {\n  return 1;\n}\n",
        "// a function that is far too long\nint f() {\n" + "  do_something();\n" * 600 + "}\n",
    ],
    ids=["empty", "no code", "few words", "licence", "declaration", "unclosed", "long comment", "long code"],
)
def test_what_is_no_pair(text):
    assert mine_pairs(text) == []


def test_the_same_pair_is_given_once():
    assert len(mine_pairs(SQL + "\n" + SQL)) == 1


def test_the_standard_library_has_thousands_of_sound_pairs():
    texts = [path.read_text(errors="replace") for path in sorted(LIBRARY.glob("[a-g]*.py"))]
    found = [mine_pairs(text) for text in texts]
    assert sum(map(len, found)) > 700
    for comment, code in (pair for pairs in found for pair in pairs):
        assert 0 < len(comment) <= LONGEST_COMMENT_CHARS
        assert len(code) <= LONGEST_CODE_CHARS
        assert sum(bool(line.strip()) for line in code.splitlines()) >= SHORTEST_CODE_LINES
        assert not NOT_PROSE.search(comment)
    documented = [pairs for text, pairs in zip(texts, found, strict=True) if _python_pairs(text)]
    for comment, code in (pair for pairs in documented for pair in pairs):
        [definition] = ast.parse(code).body
        assert isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        assert ast.get_docstring(definition) != comment


@given(st.text(alphabet="#/*- \n\tab(){}\"':=\r\f", max_size=200))
def test_no_text_is_too_odd(text):
    for comment, code in mine_pairs(text):
        assert comment
        assert len(code.splitlines()) >= SHORTEST_CODE_LINES
