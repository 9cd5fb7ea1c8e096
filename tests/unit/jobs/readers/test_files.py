"""Sources: what is found, in which order, what is read from it, and what an unreadable one says."""

import gzip
import json
import os
import tempfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hatchery_api.conditions import Reason
from hatchery_api.resources.corpus import Files
from hatchery_jobs.readers.documents import Fault
from hatchery_jobs.readers.files import read_file
from hatchery_jobs.readers.formats.base import FileFormat
from hatchery_jobs.readers.formats.registry import FORMATS, format_name
from hatchery_jobs.readers.listing import fingerprint_files, list_files
from hatchery_jobs.readers.sources import open_source, unreadable
from hatchery_jobs.runtime.errors import DataError, RetryableError, SpecError

NOBODY = 65534


@pytest.fixture
def folder(tmp_path):
    """Where the input lies."""
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def files(*urls, **settings):
    return Files.model_validate({"urls": [str(url) for url in urls], **settings})


def read(folder, **settings):
    spec = files(f"{folder}/*", **settings)
    return [item for file in list_files("spec.sources[a]", spec) for item in read_file(file, spec)]


def only_fault(folder, **settings):
    items = read(folder, **settings)
    assert isinstance(items[-1], Fault), items
    return items[-1]


@pytest.mark.parametrize(
    ("name", "format_"),
    [
        ("a.py", "code"),
        ("Makefile", "code"),
        ("a.txt.gz", "text"),
        ("a.jsonl.gz", "jsonl"),
        ("b.TSV", "csv"),
        ("c.parquet", "parquet"),
    ],
)
def test_the_extension_decides_the_format(name, format_):
    assert format_name(f"s3://bucket/{name}", "auto") == format_
    assert format_name(f"s3://bucket/{name}", "text") == "text"


def test_every_format_gives_its_rows(folder):
    rows = ["one", "zwei ä\n", ""]
    lines = "".join(json.dumps({"x": 1, "text": row}) + "\n" for row in rows)
    (folder / "1.jsonl").write_text(lines)
    (folder / "2.jsonl.gz").write_bytes(gzip.compress(lines[:20].encode()) + gzip.compress(lines[20:].encode()))
    (folder / "3.csv").write_bytes('\ufeffx,text\r\n1,one\r\n2,"zwei ä\n"\r\n3,\r\n'.encode())
    (folder / "4.tsv").write_text('x\ttext\n1\tone\n2\t"zwei ä\n"\n3\t\n')
    pq.write_table(pa.table({"x": [1, 2, 3], "text": rows}), folder / "5.parquet")
    assert read(folder) == [(number, row) for _ in range(5) for number, row in enumerate(rows, 1)]


def test_a_file_of_code_is_one_document_verbatim(folder):
    (folder / "a.py").write_bytes("\ufeffx = 1\r\n\x00ä".encode())
    (folder / "b.py.gz").write_bytes(gzip.compress(b"y"))
    (folder / "c.py").write_bytes(b"")
    assert read(folder) == [(1, "x = 1\r\n\x00ä"), (1, "y"), (1, "")]


def test_another_encoding_column_and_delimiter(folder):
    (folder / "a.csv").write_bytes("b;c\n1;ä\n".encode("latin-1"))
    assert read(folder, encoding="latin-1", textField="c", delimiter=";") == [(1, "ä")]


def test_rows_of_jsonl_are_numbered_as_an_editor_does(folder):
    (folder / "a.jsonl").write_text('\n{"text": "x"}\n\n{"text": "y"}')
    assert read(folder) == [(2, "x"), (4, "y")]


def test_fields_longer_than_the_csv_library_s_limit_are_read(folder):
    (folder / "a.csv").write_text("text\n" + "x" * 200_000 + "\n")
    assert len(read(folder)[0][1]) == 200_000


@pytest.mark.parametrize(
    ("name", "data", "row", "offset", "says"),
    [
        ("a.py", b"x = '\xff'", 1, 5, "not valid utf-8"),
        ("a.jsonl", b'{"text": "ok"}\n{"text": "\xff"}\n', 2, 25, "not valid utf-8"),
        ("a.jsonl", b'{"text": "ok"}\n\n{"text": oops}\n', 3, 25, "invalid JSON"),
        ("a.jsonl", b'["text"]\n', 1, 0, "JSON list"),
        ("a.jsonl", b'{"body": "x", "id": 1}\n', 1, 0, "no field 'text'; the row has 'body', 'id'"),
        ("a.jsonl", b'{"text": null}\n', 1, 0, "field 'text' is null"),
        ("a.jsonl", b'{"text": 5}\n', 1, 0, "field 'text' is int"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', 1, 0, "invalid Unicode"),
        ("a.csv", b"body,id\nx,1\n", None, None, "no column 'text'; the file has 'body', 'id'"),
        ("a.csv", b"", None, None, "the file has none"),
        ("a.csv", b"id,text\n1,x\n2\n", 2, None, "is number 2 (line 3)"),
        ("a.csv", b"id,text\n1,\xff\n", 1, None, "invalid Unicode"),
        ("a.csv", b'text\n"a"b\n', 1, None, "(line 2)"),
        ("a.parquet", b"PAR1 but nothing else", None, None, "not a readable parquet file"),
        ("a.py.gz", b"not packed", 1, None, "gzip data is corrupt"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 9999)[:-20], None, None, "corrupt or truncated"),
    ],
)
def test_what_cannot_be_read_is_named_by_file_row_byte_and_field(folder, name, data, row, offset, says):
    (folder / name).write_bytes(data)
    fault = only_fault(folder)
    message = unreadable("spec.sources[a]", fault).message
    assert says in message
    assert f"spec.sources[a]: {folder}/{name}" in message
    assert "onBadRow: quarantine" in message
    assert row is None or f"row {row}" in message
    assert offset is None or f"byte {offset}" in message
    assert unreadable("spec.sources[a]", fault).reason is Reason.UNREADABLE_INPUT


def test_a_parquet_file_without_the_column_names_those_it_has(folder):
    pq.write_table(pa.table({"content": ["x"]}), folder / "a.parquet")
    assert "'content'" in only_fault(folder).problem
    pq.write_table(pa.table({"text": [1]}), folder / "a.parquet")
    assert "is int" in only_fault(folder).problem


def test_rows_around_a_bad_one_are_read(folder):
    (folder / "a.jsonl").write_text('{"text": "x"}\noops\n{"text": "y"}\n')
    (folder / "b.csv").write_bytes(b"text\nx\n\xff\ny\n")
    assert [i if isinstance(i, tuple) else i.row for i in read(folder)] == [(1, "x"), 2, (3, "y")] * 2


def test_whatever_can_be_read_of_a_truncated_file_is(folder):
    data = gzip.compress(b"".join(b'{"text": "%d"}\n' % n for n in range(50_000)))
    (folder / "a.jsonl.gz").write_bytes(data[: len(data) // 2])
    items = read(folder)
    assert len(items) > 1000
    assert items[-1].row == len(items)
    assert items[-1].offset_bytes == len(data) // 2


def test_a_sick_disk_is_tried_again(folder, monkeypatch):
    (folder / "a.py").write_text("x")

    def break_down(_file):
        raise OSError(5, "Input/output error")

    monkeypatch.setitem(FORMATS, "code", FileFormat(break_down))
    origin = open_source("spec.sources[a]", "a", files(f"{folder}/*"), None, "")
    with pytest.raises(RetryableError, match=r"spec.sources\[a\]: .*a.py: .*Input/output error"):
        list(origin.items())


@pytest.fixture
def ordinary_user():
    """Nobody special, and a folder of theirs: root may read everything."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        before = os.geteuid()
        if before == 0:
            os.chown(place, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        yield Path(place)
        os.seteuid(before)


def test_a_folder_without_permission_is_an_error_that_names_it(ordinary_user):
    (ordinary_user / "a.py").write_text("x")
    (ordinary_user / "closed").mkdir(mode=0)
    with pytest.raises(DataError, match=r"files.urls\[0\] .*: no permission to read .*/closed; make files"):
        list_files("spec.sources[a]", files(f"{ordinary_user}/**/*.py"))
    assert len(list_files("spec.sources[a]", files(f"{ordinary_user}/*.py"))) == 1


def test_a_file_without_permission_is_a_fault_that_names_it(ordinary_user):
    (ordinary_user / "a.py").touch(mode=0)
    fault = only_fault(ordinary_user)
    assert (fault.path, fault.problem) == (f"{ordinary_user}/a.py", "Permission denied")
    assert "readable for group 10001" in unreadable("spec.sources[a]", fault).message


def test_patterns_match_as_documented_each_file_once_in_order(folder):
    for name in ("b.py", "a.py", "x/c.py", "x/y/d.py", ".git/e.py", "x/f.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    found = lambda *urls: [f.url.removeprefix(f"{folder}/") for f in list_files("spec.sources[a]", files(*urls))]  # noqa: E731
    assert found(f"{folder}/*.py") == ["a.py", "b.py"]
    assert found(f"{folder}/**/*.py", f"{folder}/a.py") == ["a.py", "b.py", "x/c.py", "x/y/d.py"]
    assert found(f"{folder}/*/[cf].*") == ["x/c.py", "x/f.txt"]
    assert found(f"{folder}/x/?.txt") == ["x/f.txt"]
    assert found(f"file://{folder}/b.py") == ["b.py"]


def test_a_claim_is_read_where_it_is_mounted_and_named_as_a_claim(folder, monkeypatch):
    monkeypatch.setenv("HATCHERY_CLAIMS_PATH", str(folder))
    (folder / "data" / "x").mkdir(parents=True)
    (folder / "data" / "x" / "a.py").write_text("x")
    for url in ("claim://data/**/*.py", "claim://data/x/a.py"):
        assert [f.url for f in list_files("spec.sources[a]", files(url))] == ["claim://data/x/a.py"]


def test_links_and_names_that_are_no_text_are_read(folder, tmp_path):
    (folder / "deep").mkdir()
    (folder / "deep" / "a.py").write_text("x")
    (folder / "deep" / "b.py").symlink_to("a.py")
    (folder / "deep" / "loop").symlink_to(folder)
    (folder / "deep" / os.fsdecode(b"\xff.py")).write_text("y")
    (tmp_path / "link").symlink_to(folder)
    spec = files(f"{tmp_path}/link/**/*.py")
    found = list_files("spec.sources[a]", spec)
    assert [f.url.removeprefix(f"{tmp_path}/link/deep/") for f in found] == ["\\xff.py", "a.py", "b.py"]
    assert [item for file in found for item in read_file(file, spec)] == [(1, "y"), (1, "x"), (1, "x")]


def test_remote_stores_are_read_through_fsspec():
    store = fsspec.filesystem("memory")
    store.pipe({"/in/b.txt": b"b", "/in/a/c.txt": b"c"})
    spec = files("memory://in/**/*.txt")
    found = list_files("spec.sources[a]", spec)
    assert [file.url for file in found] == ["memory:///in/a/c.txt", "memory:///in/b.txt"]
    assert [item for file in found for item in read_file(file, spec)] == [(1, "c"), (1, "b")]
    before = fingerprint_files(found)
    store.pipe({"/in/b.txt": b"longer"})
    assert fingerprint_files(list_files("spec.sources[a]", spec)) != before
    store.rm("/in", recursive=True)


@pytest.mark.parametrize(
    ("url", "error", "reason"),
    [
        ("{}/nothing.py", DataError, Reason.SOURCE_NOT_FOUND),
        ("{}/**/*.nothing", DataError, Reason.SOURCE_NOT_FOUND),
        ("{}/none/*.py", DataError, Reason.SOURCE_NOT_FOUND),
        ("memory://none/a.py", DataError, Reason.SOURCE_NOT_FOUND),
        ("memory://none/*.py", DataError, Reason.SOURCE_NOT_FOUND),
        ("gopher://none/a.py", SpecError, Reason.INVALID_SPEC),
        ("http://127.0.0.1:1/a.py", RetryableError, Reason.UNREADABLE_INPUT),
    ],
)
def test_a_source_that_is_not_there_is_named(folder, url, error, reason):
    with pytest.raises(error) as raised:
        list_files("spec.sources[a]", files(url.format(folder)))
    assert raised.value.reason is reason
    assert "spec.sources[a].files.urls[0]" in raised.value.message
    assert url.format(folder) in raised.value.message


def test_an_unknown_encoding_is_a_spec_error(folder):
    with pytest.raises(SpecError, match=r"spec.sources\[a\].files.encoding: 'utf-9'"):
        list_files("spec.sources[a]", files(f"{folder}/*", encoding="utf-9"))


def test_the_fingerprint_follows_content_and_name_but_not_time(folder):
    (folder / "a.py").write_text("x")
    prints = [fingerprint_files(list_files("spec.sources[a]", files(f"{folder}/*")))]
    os.utime(folder / "a.py", (1, 1))
    assert fingerprint_files(list_files("spec.sources[a]", files(f"{folder}/*"))) == prints[0]
    (folder / "a.py").write_text("y")
    prints.append(fingerprint_files(list_files("spec.sources[a]", files(f"{folder}/*"))))
    (folder / "a.py").rename(folder / "b.py")
    prints.append(fingerprint_files(list_files("spec.sources[a]", files(f"{folder}/*"))))
    assert len(set(prints)) == 3
