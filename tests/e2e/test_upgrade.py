"""The chart's life in a real cluster: upgraded under a training run, uninstalled, installed again."""

import pytest
from tests.cluster import packages
from tests.cluster.buildah import Buildah
from tests.cluster.images import load
from tests.support.jobs.training_run import containers, is_training, training_run
from tests.support.kube.deploy import install_chart, uninstall_chart
from tests.support.kube.releases import unpack

PREVIOUS = "0.1.0"


@pytest.fixture(scope="module")
def previous_release(tmp_path_factory):
    return unpack(PREVIOUS, tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def previous_images(cluster, images, previous_release):
    """The operator's image with the packages of the previous release; its dependencies have not changed otherwise."""
    packages.ensure_packages(packages.IMAGES, "building images")
    buildah = Buildah(cluster.layout.images / "buildah")
    container = buildah.run("from", "--quiet", "--tls-verify=false", images["operator"])
    for package in ("hatchery_api", "hatchery_operator"):
        # a package of this release would hide the previous release's module of the same name
        buildah.run("run", "--isolation=chroot", "--user=0", container, "--", "rm", "-rf", f"/opt/hatchery/{package}")
        buildah.run("copy", "--quiet", container, previous_release.packages / package, f"/opt/hatchery/{package}")
    # a node keeps the images it has pulled: a tag that means something else later would bring back an older one
    name = f"localhost/hatchery-operator-previous:{PREVIOUS}-{images['operator'].rpartition(':')[2]}"
    buildah.run("commit", "--quiet", "--rm", container, name)
    return {**images, "operator": load(cluster.layout, name)}


@pytest.fixture(scope="module")
def upgraded(cluster, kube, namespace, images, previous_images, previous_release):
    """A run that began under the previous release and ended under this one; pods of both times, and its end."""
    install_chart(cluster, kube, previous_images, previous_release.chart)
    kube.apply(*training_run("upgraded", namespace))

    kube.wait("PretrainRun", namespace, "upgraded", is_training, 300)
    before = containers(kube, namespace)
    install_chart(cluster, kube, images)
    after = containers(kube, namespace)
    final = kube.wait_succeeded("PretrainRun", namespace, "upgraded", 300)
    return before, after, containers(kube, namespace), final


def test_an_upgrade_during_training_restarts_no_pod(upgraded):
    before, after, at_the_end, _ = upgraded
    assert before == after == at_the_end
    assert set(before.values()) == {0}


def test_a_run_begun_under_the_previous_release_ends_under_this_one(upgraded):
    status = upgraded[-1]["status"]
    assert (status["attempts"], status["failures"], status["step"]) == (2, 0, 4000)
    assert not status.get("resumedFrom")


def test_uninstalled_the_chart_leaves_definitions_resources_and_data_only(
    cluster, kube, namespace, operator, images, upgraded
):
    before = kube.get("PretrainRun", namespace, "upgraded")
    jobs = {job.metadata.uid for job in kube.batch.list_namespaced_job(namespace).items}
    uninstall_chart(cluster, kube)
    try:
        labelled = ["-l", "app.kubernetes.io/part-of=hatchery", "--ignore-not-found", "-o", "name"]
        kinds = "deployments,services,configmaps,serviceaccounts,networkpolicies,poddisruptionbudgets,leases,roles"
        left = kube.kubectl("get", kinds, "-n", operator, *labelled).split()
        left += kube.kubectl("get", "clusterroles,clusterrolebindings", *labelled).split()
        assert left == []
        assert kube.kubectl("get", "crd", "-o", "name").count(".hatchery.dev") == 4
        assert kube.get("PretrainRun", namespace, "upgraded") == before
        assert "hatchery" in kube.kubectl("get", "pvc", "-n", namespace, "-o", "name")
    finally:
        install_chart(cluster, kube, images)
    after = kube.get("PretrainRun", namespace, "upgraded")
    assert after["status"] == before["status"]
    assert {job.metadata.uid for job in kube.batch.list_namespaced_job(namespace).items} == jobs
