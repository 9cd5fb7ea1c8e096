"""The cache: the latest version wins, dependents are notified, and kopf's events only keep it current."""

from dataclasses import replace
from typing import Any

import pytest
from tests.support.operator.builders import NAMESPACE, artifact, condition, job, manifest, run

from hatchery_operator.controller.handlers import on_job_event, on_run_event
from hatchery_operator.controller.observe import referenced_keys
from hatchery_operator.domain.job_summary import summarize_job
from hatchery_operator.domain.objects import Key, Manifest, key_of
from hatchery_operator.kube.cache import Cache

CORPUS = Key("CorpusBuild", NAMESPACE, "corpus")
TOKENIZER = Key("TokenizerBuild", NAMESPACE, "tokenizer")


def corpus(version: int, digest: str | None = None, **metadata: Any) -> Manifest:
    found = manifest("CorpusBuild", "corpus", version=version)
    found["metadata"] |= metadata
    if digest:
        done = condition("Succeeded", "True", "Completed")
        found["status"] = {"conditions": [done], "artifact": artifact(digest).wire()}
    return found


def with_dependent() -> Cache:
    cache = Cache(referenced_keys)
    cache.put(manifest("TokenizerBuild", "tokenizer"))
    return cache


def test_an_older_version_never_replaces_a_newer_one() -> None:
    cache = Cache(referenced_keys)
    cache.put(corpus(5, "new"))
    cache.put(corpus(4, "old"))
    found = cache.get(CORPUS)
    assert found
    assert found.status.artifact
    assert found.status.artifact.digest == "new"
    assert cache.version(CORPUS) == 5


def test_those_who_wait_are_told_of_what_concerns_them_and_of_nothing_else() -> None:
    cache = with_dependent()
    assert cache.put(corpus(1)) == {CORPUS, TOKENIZER}
    assert cache.put(corpus(3, "d1")) == {CORPUS, TOKENIZER}
    assert cache.put(corpus(4, "d1", generation=2)) == {CORPUS}
    assert cache.put(corpus(5, "d2", generation=2)) == {CORPUS, TOKENIZER}
    deleting = corpus(6, "d2", generation=2, deletionTimestamp="2026-01-01T00:00:00Z")
    assert cache.put(deleting) == {CORPUS, TOKENIZER}
    assert cache.remove(CORPUS) == {TOKENIZER}
    assert cache.remove(CORPUS) == frozenset()


def test_a_change_that_nobody_here_reads_wakes_nobody_and_is_not_lost() -> None:
    cache = with_dependent()
    cache.put(corpus(1, "d1"))
    assert cache.put(corpus(2, "d1", annotations={"a": "b"})) == frozenset()
    found = cache.get(CORPUS)
    assert found
    assert (found.resource_version, cache.version(CORPUS)) == ("2", 2)


def test_a_version_that_is_known_wakes_nobody() -> None:
    cache = with_dependent()
    assert cache.put(corpus(1))
    assert cache.put(corpus(1)) == frozenset()


def test_a_spec_is_read_again_only_when_it_can_have_changed() -> None:
    cache, source = Cache(referenced_keys), corpus(1)
    cache.put(source)
    before = cache.get(CORPUS)
    cache.put(corpus(2, "d1"))
    after = cache.get(CORPUS)
    assert before
    assert after
    assert after.spec is before.spec
    made_again = corpus(3, uid="another")
    made_again["spec"] = {"sources": "nonsense"}
    cache.put(made_again)
    last = cache.get(CORPUS)
    assert last
    assert last.spec is None
    assert "spec.sources" in last.invalid


def test_a_spec_that_changes_changes_whom_it_waits_for() -> None:
    cache = with_dependent()
    cache.put(manifest("TokenizerBuild", "tokenizer", version=2, generation=2, corpusRef={"name": "other"}))
    assert cache.put(corpus(3)) == {CORPUS}
    other = manifest("CorpusBuild", "other", version=4)
    assert cache.put(other) == {TOKENIZER, key_of(other)}


def test_a_late_deletion_does_not_remove_what_was_made_since() -> None:
    cache = Cache(referenced_keys)
    cache.put(corpus(9))
    cache.remove(CORPUS, version=8)
    assert cache.get(CORPUS)
    cache.remove(CORPUS, version=9)
    assert cache.get(CORPUS) is None


def test_jobs_are_found_by_their_owner_and_kept_in_their_newest_version() -> None:
    cache, owner = Cache(referenced_keys), run()
    cache.put_job(job(owner, "a", version=2, ready=1))
    cache.put_job(job(owner, "a", version=1, ready=0))
    cache.put_job(job(owner, "b"))
    assert cache.jobs_of(owner.uid)["a"].ready == 1
    assert set(cache.jobs_of(owner.uid)) == {"a", "b"}
    assert cache.jobs_of("another") == {}


def test_removing_a_job_spares_one_of_the_same_name_made_since() -> None:
    cache, owner = Cache(referenced_keys), run()
    cache.put_job(job(owner, "a", uid="new"))
    cache.remove_job(job(owner, "a", uid="old"))
    assert "a" in cache.jobs_of(owner.uid)
    cache.remove_job(job(owner, "a", uid="new"))
    assert cache.jobs() == []


def test_a_late_word_of_a_job_that_was_made_again_does_not_bring_the_old_one_back() -> None:
    cache, owner = Cache(referenced_keys), run()
    cache.put_job(job(owner, "a", uid="old", version=3))
    cache.put_job(job(owner, "a", uid="new", version=9))
    cache.put_job(job(owner, "a", uid="old", version=5, end="Failed"))
    assert cache.jobs_of(owner.uid)["a"].uid == "new"


def test_events_keep_the_cache_current_and_name_who_must_look_again() -> None:
    cache = with_dependent()
    assert on_run_event(cache, {"type": "ADDED", "object": corpus(1)}) == {CORPUS, TOKENIZER}
    assert on_run_event(cache, {"type": "MODIFIED", "object": corpus(2, generation=2)}) == {CORPUS}
    assert on_run_event(cache, {"type": "DELETED", "object": corpus(3)}) == {CORPUS, TOKENIZER}
    assert cache.get(CORPUS) is None


def job_manifest(**metadata: Any) -> Manifest:
    labels = {"hatchery.dev/uid": "u", "hatchery.dev/kind": "CorpusBuild", "hatchery.dev/name": "corpus"}
    return {
        "metadata": {
            "name": "corpus-build-a1",
            "namespace": NAMESPACE,
            "uid": "j",
            "resourceVersion": "7",
            "creationTimestamp": "2026-03-01T12:00:00Z",
            "labels": labels,
            "ownerReferences": [{"uid": "u", "controller": True}],
            **metadata,
        },
        "spec": {"completions": 2},
        "status": {"active": 2, "ready": 1},
    }


def test_events_of_jobs_wake_their_owner() -> None:
    cache = Cache(referenced_keys)
    assert on_job_event(cache, {"type": "ADDED", "object": job_manifest()}) == CORPUS
    assert cache.jobs_of("u")["corpus-build-a1"].ready == 1
    assert on_job_event(cache, {"type": "MODIFIED", "object": job_manifest(resourceVersion="8")}) is None
    ready = job_manifest(resourceVersion="9") | {"status": {"active": 2, "ready": 2}}
    assert on_job_event(cache, {"type": "MODIFIED", "object": ready}) == CORPUS
    assert on_job_event(cache, {"type": "DELETED", "object": job_manifest()}) == CORPUS
    assert cache.jobs() == []


@pytest.mark.parametrize(
    "metadata",
    [
        {"ownerReferences": []},
        {"ownerReferences": [{"uid": "other", "controller": True}]},
        {"ownerReferences": [{"uid": "u"}]},
        {"labels": {"hatchery.dev/uid": "u", "hatchery.dev/kind": "Nonsense"}},
    ],
)
def test_a_job_that_only_looks_like_ours_is_ignored(metadata: dict[str, Any]) -> None:
    assert on_job_event(Cache(referenced_keys), {"type": "ADDED", "object": job_manifest(**metadata)}) is None


def test_a_job_is_old_since_it_was_last_resumed() -> None:
    resumed = job_manifest()
    resumed["status"]["startTime"] = "2026-03-02T00:00:00Z"
    found, created = summarize_job(resumed), summarize_job(job_manifest())
    assert found
    assert created
    assert (created.since, found.since) == ("2026-03-01T12:00:00Z", "2026-03-02T00:00:00Z")
    assert replace(found, since=created.since) == created


def test_a_status_that_cannot_be_read_is_named_and_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    cache, broken = Cache(referenced_keys), corpus(1)
    broken["status"] = {"attempts": "many"}
    assert cache.put_or_log(broken) == frozenset()
    assert "CorpusBuild team/corpus has an invalid status" in caplog.text
    assert cache.get(CORPUS) is None
