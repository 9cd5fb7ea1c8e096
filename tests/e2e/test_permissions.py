"""What the installed operator did in all the tests before this one, from the API server's audit log.

That every permission is used is shown in tests/apiserver, where the operator is driven through its rarer actions too.
"""

import pytest
from tests.support.kube.permissions import account_user, beyond, granted, usage

ACCOUNT = "hatchery-operator"


@pytest.fixture(scope="module")
def done(cluster, kube, operator):
    """What the operator's pods that run now have done."""
    if cluster.context:
        pytest.skip("HATCHERY_KUBECONTEXT names somebody's own cluster, whose audit log is not ours to read")
    pods = {pod.metadata.name for pod in kube.core.list_namespaced_pod(operator).items}
    return usage(cluster.plane.audit_log, account_user(operator, ACCOUNT), pods=pods)


def test_nothing_was_refused(done):
    assert [str(action) for action in done.refused] == []


def test_nothing_was_done_without_a_rule_of_the_operators_own_roles(kube, operator, done):
    assert done.used
    assert beyond(granted(kube.kubectl, operator, ACCOUNT), done.used) == []


def test_no_secret_and_no_inside_of_a_pod_was_touched(done):
    assert not {"secrets", "pods/exec", "pods/attach", "pods/log", "pods/portforward"} & {a.resource for a in done.used}
