"""Two replicas of the operator under a training run: both are replaced, and no pod of the run notices."""

from tests.support.jobs.training_run import containers, is_training, training_run

LEASE = "hatchery-operator"


def holder(kube, operator):
    return kube.kubectl("get", "lease", LEASE, "-n", operator, "-o", "jsonpath={.spec.holderIdentity}")


def test_replacing_all_replicas_during_training_restarts_no_pod(kube, namespace, operator):
    kube.apply(*training_run("replicated", namespace))
    kube.wait("PretrainRun", namespace, "replicated", is_training, 300)
    before, first = containers(kube, namespace), holder(kube, operator)
    kube.kubectl("rollout", "restart", "-n", operator, f"deployment/{LEASE}")
    kube.kubectl("rollout", "status", "-n", operator, f"deployment/{LEASE}", "--timeout=180s")
    assert containers(kube, namespace) == before
    done = kube.wait_succeeded("PretrainRun", namespace, "replicated", 300)
    assert containers(kube, namespace) == before
    assert set(before.values()) == {0}
    assert (done["status"]["attempts"], done["status"]["failures"], done["status"]["step"]) == (2, 0, 4000)
    assert holder(kube, operator) not in ("", first)
