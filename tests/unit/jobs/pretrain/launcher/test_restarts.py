"""The restart policy, as a table of launches."""

import pytest

from hatchery_api.contract import ExitCode
from hatchery_jobs.pretrain.launcher import Cause, WorkerFailure
from hatchery_jobs.pretrain.launcher.restarts import MAX_FAILED_RENDEZVOUS, MAX_HANGS, Launch, RestartPolicy
from hatchery_jobs.runtime.errors import RetryableError, SpecError


def failure(cause, reason="AttemptFailed", code=ExitCode.RETRY):
    return WorkerFailure(reason=reason, message=f"{cause} failed", exit_code=code, cause=cause)


NOT_MET = Launch(1, started=False)
KILLED = Launch(-9, started=True)
PEER_LOST = Launch(1, started=True, failure=failure(Cause.PEER))
PEER_LOST_EARLY = Launch(1, started=False, failure=failure(Cause.PEER))
HUNG = Launch(70, started=True, failure=failure(Cause.HUNG, "NoProgress"))
OWN = Launch(1, started=True, failure=failure(Cause.OWN, "NonFiniteLoss", ExitCode.SPEC_ERROR))
HALVED = Launch(1, started=True, failure=failure(Cause.MEMORY, "OutOfMemory"), rows_halved=True)
ONE_ROW = Launch(1, started=True, failure=failure(Cause.MEMORY, "OutOfMemory"))
RESTART = None


@pytest.mark.parametrize(
    ("nodes", "launches", "error"),
    [
        # a lost pod is waited for, however often that happens
        (2, [PEER_LOST], RESTART),
        (2, [PEER_LOST] * 100, RESTART),
        (2, [KILLED], RESTART),
        (1, [PEER_LOST], RESTART),
        # a killed worker of a single pod left no report: the next attempt may find one
        (1, [KILLED], "no worker reported an error"),
        (1, [NOT_MET], "exited with code 1"),
        # pods that do not meet
        (2, [NOT_MET] * (MAX_FAILED_RENDEZVOUS - 1), RESTART),
        (2, [NOT_MET] * MAX_FAILED_RENDEZVOUS, "2 pods did not meet at run-0:29500"),
        (2, [*[NOT_MET] * (MAX_FAILED_RENDEZVOUS - 1), PEER_LOST, NOT_MET], RESTART),
        (2, [*[NOT_MET] * (MAX_FAILED_RENDEZVOUS - 1), PEER_LOST_EARLY], "2 pods did not meet"),
        (1, [PEER_LOST_EARLY] * MAX_FAILED_RENDEZVOUS, "peer failed"),
        # hangs in a row
        (2, [HUNG] * (MAX_HANGS - 1), RESTART),
        (2, [HUNG] * MAX_HANGS, "hung failed"),
        (1, [HUNG] * MAX_HANGS, "hung failed"),
        (2, [*[HUNG] * (MAX_HANGS - 1), PEER_LOST, HUNG], RESTART),
        # memory
        (1, [HALVED], RESTART),
        (1, [HALVED, HALVED], RESTART),
        (1, [ONE_ROW], "memory failed"),
        (2, [HALVED, ONE_ROW], "memory failed"),
        # a worker's own error is final at the first occurrence
        (1, [OWN], "own failed"),
        (2, [PEER_LOST, OWN], "own failed"),
    ],
)
def test_decisions(nodes, launches, error):
    decided = RestartPolicy(nodes, "run-0:29500").decide(launches)
    assert (decided is None) if error is RESTART else error in decided.message


def test_the_error_has_the_workers_own_reason_and_class():
    error = RestartPolicy(2, "").decide([OWN])
    assert isinstance(error, SpecError)
    assert error.reason == "NonFiniteLoss"
    assert isinstance(RestartPolicy(2, "").decide([HUNG] * MAX_HANGS), RetryableError)
