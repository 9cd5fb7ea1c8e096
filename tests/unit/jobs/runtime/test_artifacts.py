"""Artifacts are complete or absent, never in between."""

import json
import os

import pytest

from hatchery_api.conditions import Reason
from hatchery_jobs.runtime import artifacts
from hatchery_jobs.runtime.errors import DataError, RetryableError


@pytest.fixture
def draft(tmp_path):
    return artifacts.open_draft(str(tmp_path / "store"), "k1", {"stage": "build"}, tmp_path / "scratch")


def test_a_folder_without_manifest_is_no_artifact(draft):
    (draft.folder / "data.txt").write_text("half")
    assert draft.existing() is None


def test_commit_makes_the_folder_appear_at_once_with_every_file_hashed(draft):
    (draft.folder / "sub").mkdir()
    (draft.folder / "sub/data.txt").write_text("abc")
    artifact, folder = draft.commit()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["files"] == [
        {
            "path": "sub/data.txt",
            "size": 3,
            # sha256("abc"), FIPS 180-2 appendix B.1
            "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        }
    ]
    assert artifact.bytes == 3
    assert not draft.folder.exists()
    assert draft.existing() == (artifact, folder)


def test_equal_content_gives_an_equal_digest(tmp_path):
    digests = []
    for name in ("a", "b"):
        draft = artifacts.open_draft(str(tmp_path / name), "k", {"stage": "s"}, tmp_path)
        (draft.folder / "x").write_text("same")
        digests.append(draft.commit()[0].digest)
    assert digests[0] == digests[1]


@pytest.mark.parametrize("damage", ["change", "truncate", "remove"])
def test_a_damaged_file_is_named(draft, damage):
    (draft.folder / "x.bin").write_bytes(b"0123456789")
    artifact, folder = draft.commit()
    target = folder / "x.bin"
    if damage == "remove":
        target.unlink()
    else:
        target.write_bytes(b"012345678X" if damage == "change" else b"01234")
    with pytest.raises(DataError, match=r"x\.bin.*rebuild the input") as caught:
        artifacts.open_input(artifact.uri, artifact.digest, draft.cache)
    assert caught.value.reason is Reason.ARTIFACT_CORRUPT


def test_an_artifact_that_was_replaced_is_refused(draft):
    (draft.folder / "x").write_text("1")
    artifact, _ = draft.commit()
    with pytest.raises(DataError, match="expected 000000"):
        artifacts.open_input(artifact.uri, "0" * 64, draft.cache)


def test_a_missing_input_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match="no complete artifact"):
        artifacts.open_input(str(tmp_path / "nothing"), "0" * 64, tmp_path)


def test_work_survives_between_attempts(tmp_path):
    first = artifacts.open_draft(str(tmp_path), "k", {}, tmp_path / "s")
    (first.folder / "checkpoint").write_text("step 5")
    again = artifacts.open_draft(str(tmp_path), "k", {}, tmp_path / "s")
    assert (again.folder / "checkpoint").read_text() == "step 5"


def test_no_write_permission_names_the_volume(tmp_path):
    tmp_path.chmod(0o555)
    nobody = 65534
    user = os.geteuid()
    if user == 0:
        os.seteuid(nobody)  # root may write anywhere
    try:
        with pytest.raises(RetryableError, match="no permission to write"):
            artifacts.open_draft(str(tmp_path / "root"), "k", {}, tmp_path)
    finally:
        os.seteuid(user)


def test_a_full_or_broken_volume_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RetryableError, match=r"spec\.storage") as caught:
        artifacts.open_draft(str(tmp_path / "file" / "root"), "k", {}, tmp_path)
    assert caught.value.reason is Reason.STORAGE_ERROR


def test_a_remote_store_gets_the_manifest_last_and_reads_back(tmp_path):
    import fsspec

    store = fsspec.filesystem("memory")
    draft = artifacts.open_draft("memory://bucket/run", "k", {"stage": "s"}, tmp_path / "one")
    (draft.folder / "x").write_text("remote")
    assert draft.existing() is None
    artifact, _ = draft.commit()
    assert store.exists("/bucket/run/k/manifest.json")
    folder = artifacts.open_input(artifact.uri, artifact.digest, tmp_path / "two")
    assert (folder / "x").read_text() == "remote"


def test_the_record_of_a_run_stays_with_the_artifact_and_is_no_part_of_its_content(tmp_path):
    digests = []
    for name in ("a", "b"):
        draft = artifacts.open_draft(str(tmp_path / name), "k", {}, tmp_path)
        (draft.folder / "run").mkdir()
        (draft.folder / "run/report.html").write_text(f"at {name} o'clock")
        (draft.folder / "sub/run").mkdir(parents=True)
        (draft.folder / "sub/run/x").write_text("content")
        artifact, folder = draft.commit()
        assert (folder / "run/report.html").read_text() == f"at {name} o'clock"
        assert [entry["path"] for entry in artifacts.content_files(folder)] == ["sub/run/x"]
        (folder / "run/report.html").unlink()
        assert artifacts.verify(folder, artifact.digest) is not None
        digests.append(artifact.digest)
    assert digests[0] == digests[1]


def test_the_record_of_a_run_goes_to_a_remote_store_too(tmp_path):
    import fsspec

    draft = artifacts.open_draft("memory://record-store", "k", {}, tmp_path)
    (draft.folder / "run/logs").mkdir(parents=True)
    (draft.folder / "run/logs/worker-0.jsonl").write_text("{}")
    draft.commit()
    assert fsspec.filesystem("memory").cat("/record-store/k/run/logs/worker-0.jsonl") == b"{}"


def test_claims_are_folders_in_the_pod(monkeypatch):
    monkeypatch.setenv("HATCHERY_CLAIMS_PATH", "/claims")
    assert str(artifacts.local_path("claim://data/a/b")) == "/claims/data/a/b"
    assert artifacts.local_path("s3://bucket/x") is None
