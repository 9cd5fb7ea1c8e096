"""The artifacts a stage reads: waiting for them, recording them, and staleness."""

from tests.support.operator.builders import (
    by_key,
    finished,
    later,
    run,
    with_status,
)
from tests.support.operator.plans import (
    REFERENCES,
    after,
    begun,
    condition,
    created,
    decide,
    input_text,
    message,
    running,
    stage,
    trained,
    with_job,
)

from hatchery_api.status import InputRecord


def test_a_dependent_waits_and_says_for_what() -> None:
    decided = decide(run("PretrainRun", "model"), references=by_key(run("CorpusBuild", "corpus")))
    assert condition(decided) == ("Unknown", "Waiting")
    assert "CorpusBuild corpus, which is not ready" in message(decided)
    assert "TokenizerBuild tokenizer, which does not exist" in message(decided)
    assert (created(decided), decided.status.start_time, decided.requeue_after) == ((), None, None)
    assert condition(decided, "Degraded") == ("False", "UpToDate")


def test_a_dependent_of_a_failed_run_stays_waiting_and_says_so() -> None:
    failed = after(r := running(run(name="corpus", retry={"maxAttempts": 1})), decide(r, **with_job(r, end="Failed")))
    decided = decide(run("TokenizerBuild", "tokenizer"), references=by_key(failed))
    assert condition(decided) == ("Unknown", "Waiting")
    assert condition(decided, "Degraded") == ("True", "ReferenceFailed")
    assert "delete it and create it again" in message(decided)


def test_a_dependent_starts_with_what_is_ready_and_records_it() -> None:
    references = by_key(finished("CorpusBuild", "corpus", "c1"), finished("TokenizerBuild", "tokenizer", "t1"))
    decided = decide(run("PretrainRun", "model"), references=references)
    assert [(record.role, record.digest) for record in decided.status.inputs] == [("corpus", "c1"), ("tokenizer", "t1")]
    assert stage(decided, "encode") == ("Waiting", 1)
    assert stage(decided, "train") == ("Waiting", 0)


def test_the_next_stage_begins_when_the_first_is_complete() -> None:
    subject, decided = trained(REFERENCES)
    assert condition(decided) == ("Unknown", "Pending")
    assert (decided.requeue_after, decided.status.current_stage, decided.status.artifact) == (0, "train", None)
    assert getattr(decided.status, "parameters", None) == 7
    decided = decide(subject, references=REFERENCES)
    assert stage(decided, "train") == ("Waiting", 1)
    assert decided.status.attempts == 2
    inputs = input_text(decided)
    assert '"role":"tokens"' in inputs
    assert "claim://hatchery/team/x/tokens" in inputs
    assert [record.role for record in decided.status.inputs] == ["corpus", "tokenizer"]


def test_training_waits_for_the_run_whose_weights_it_goes_on_from() -> None:
    later_one = run("PretrainRun", "model", model={"from": {"pretrainRef": {"name": "base"}}})
    subject, _ = trained(REFERENCES, later_one)
    decided = decide(subject, references=REFERENCES | by_key(run("PretrainRun", "base")))
    assert condition(decided) == ("Unknown", "Waiting")
    assert "PretrainRun base, which is not ready" in message(decided)
    decided = decide(subject, references=REFERENCES | by_key(finished("PretrainRun", "base", "m1")))
    assert stage(decided, "train") == ("Waiting", 1)
    assert '"role":"model"' in input_text(decided)
    assert ("model", "m1") in [(record.role, record.digest) for record in decided.status.inputs]


def test_a_retry_uses_the_inputs_of_the_first_attempt_and_turns_stale() -> None:
    subject = begun(run("PretrainRun", "model"), references=REFERENCES)
    changed = by_key(finished("CorpusBuild", "corpus", "c2"), finished("TokenizerBuild", "tokenizer", "t1"))
    decided = decide(subject, references=changed)
    assert condition(decided, "Stale") == ("True", "ReferenceChanged")
    assert "CorpusBuild corpus" in message(decided, "Stale")
    assert [record.digest for record in decided.status.inputs] == ["c1", "t1"]
    assert '"digest":"c1"' in input_text(decided)


def test_a_finished_run_turns_stale_but_does_not_run_again() -> None:
    record = InputRecord(role="corpus", kind="CorpusBuild", name="corpus", uri="claim://c/x", digest="c1")
    subject = with_status(finished("TokenizerBuild", "tokenizer"), inputs=[record])
    fresh = decide(subject, references=by_key(finished("CorpusBuild", "corpus", "c1")))
    assert condition(fresh, "Stale") == ("False", "UpToDate")
    stale = decide(subject, references=by_key(finished("CorpusBuild", "corpus", "c2")))
    assert condition(stale, "Stale") == ("True", "ReferenceChanged")
    assert (created(stale), condition(stale)) == ((), ("True", "Completed"))
    again = decide(after(subject, stale), now=later(60), references=by_key(finished("CorpusBuild", "corpus", "c2")))
    assert again.status == stale.status


def test_a_reference_that_is_gone_or_is_made_again_is_not_yet_a_change() -> None:
    record = InputRecord(role="corpus", kind="CorpusBuild", name="corpus", uri="claim://c/x", digest="c1")
    subject = with_status(finished("TokenizerBuild", "tokenizer"), inputs=[record])
    for references in ({}, by_key(run("CorpusBuild", "corpus"))):
        assert condition(decide(subject, references=references), "Stale") == ("False", "UpToDate")
