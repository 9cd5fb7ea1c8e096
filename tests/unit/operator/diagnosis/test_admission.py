"""Rejections by the API server."""

import pytest
from tests.support.operator.pod_situations import NAMES, situation

from hatchery_api.conditions import Reason
from hatchery_operator.diagnosis import why_rejected


def test_each_refused_try_reads_the_same_so_that_nothing_is_written_again() -> None:
    for name in ("quota-cpu", "quota-both", "policy", "psa", "limit-max", "limit-min"):
        _, events = situation(name)
        texts = {event["message"] for event in events}
        assert len(texts) == len(events) > 1
        assert len({why_rejected(text, NAMES) for text in texts}) == 1
    first = 'pods "x-1" is forbidden: [minimum cpu usage per Pod is 2, but request is 1, maximum memory usage per Pod is 3, but limit is 4]'
    other = 'pods "x-2" is forbidden: [maximum memory usage per Pod is 3, but limit is 4, minimum cpu usage per Pod is 2, but request is 1]'
    assert why_rejected(first, NAMES) == why_rejected(other, NAMES)


@pytest.mark.parametrize(
    ("answer", "reason", "words"),
    [
        (
            'jobs.batch "count-build-a1" is forbidden: exceeded quota: objects, requested: count/jobs.batch=1, '
            "used: count/jobs.batch=0, limited: count/jobs.batch=0",
            Reason.QUOTA_EXCEEDED,
            "rejects the Job: count/jobs.batch: requested 1, used 0 of 0; wait for other runs to finish, or have the quota raised",
        ),
        (
            'configmaps "x" is forbidden: unable to create new content in namespace why-a because it is being terminated',
            Reason.NAMESPACE_TERMINATING,
            "namespace team is being deleted; configmaps cannot be created in it",
        ),
        (
            'jobs.batch is forbidden: User "system:serviceaccount:s:o" cannot create resource "jobs" in API group '
            '"batch" in the namespace "team"',
            Reason.POD_REFUSED,
            "system:serviceaccount:s:o is not allowed to create jobs in namespace team",
        ),
        (
            'admission webhook "validate.kyverno.svc" denied the request: no label team',
            Reason.POD_REFUSED,
            "webhook validate.kyverno.svc rejects a child: no label team",
        ),
    ],
)
def test_what_the_operator_itself_is_refused_reads_like_what_pods_are(answer: str, reason: Reason, words: str) -> None:
    said = why_rejected(answer, NAMES)
    assert (said.reason, words in said.message) == (reason, True), said.message
