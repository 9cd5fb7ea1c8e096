"""No spec that is accepted gives a pod more than the operator's own pods have; what is refused has no effect at all."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.support.operator.builders import NOW, SPECS, by_key, finished, manifest
from tests.support.operator.plans import created
from tests.support.operator.pod_overrides import GOOD_OVERRIDES, GOOD_PLACEMENTS, JUNK, JUNK_PLACEMENTS

from hatchery_api.conditions import ConditionType, Reason, find_condition
from hatchery_api.kinds import BY_KIND, KINDS
from hatchery_api.pod_overrides import ALLOWED_ANNOTATIONS, RESERVED_PATHS, RESERVED_VARIABLES, PodOverrides
from hatchery_operator.domain.attempt import Attempt
from hatchery_operator.domain.labels import INPUT_ANNOTATION, ISOLATED_LABEL
from hatchery_operator.domain.objects import Manifest, Observed, parse_run
from hatchery_operator.manifests import manifests
from hatchery_operator.planning import plan
from hatchery_operator.settings import Progress, Settings
from hatchery_operator.stages import STAGES

SETTINGS = Settings(progress=Progress(service_url="https://hatchery.system.svc:8443"))
STAGES_OF_KINDS = [(kind.kind, stage.name) for kind in KINDS for stage in STAGES[kind.kind]]

POD_FIELDS = {
    *("restartPolicy", "terminationGracePeriodSeconds", "automountServiceAccountToken", "enableServiceLinks"),
    *("securityContext", "containers", "volumes", "subdomain", "nodeSelector", "tolerations", "affinity"),
    *("priorityClassName", "runtimeClassName", "imagePullSecrets", "schedulerName", "topologySpreadConstraints"),
    "resourceClaims",
}
CONTAINER_FIELDS = {
    *("name", "image", "imagePullPolicy", "command", "env", "ports", "resources", "terminationMessagePath"),
    *("terminationMessagePolicy", "securityContext", "volumeMounts"),
}
SAFE_VOLUMES = {"configMap", "secret", "emptyDir", "persistentVolumeClaim", "projected", "downwardAPI"}


def job_of(kind: str, stage: str, placement: Any) -> Manifest:
    """The Job of a stage; a ValidationError when the placement is refused."""
    spec = BY_KIND[kind].spec.model_validate({**SPECS[kind], "placement": placement})
    [definition] = [one for one in STAGES[kind] if one.name == stage]
    run = parse_run(manifest(kind, placement=placement))
    assert run.spec == spec
    return manifests(Attempt(run, spec, stage, 1, definition.shape(spec)), SETTINGS)[-1]


def unsafe(job: Manifest) -> list[str]:
    """What a pod of the Job has that it must not have, judged without any of the operator's own rules."""
    pod = job["spec"]["template"]["spec"]
    found = [f"pod.{field}" for field in pod.keys() - POD_FIELDS]
    if len(pod["containers"]) != 1:
        found.append("containers")
    container = pod["containers"][0]
    found += [f"container.{field}" for field in container.keys() - CONTAINER_FIELDS]
    inside = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if not inside.items() <= pod["securityContext"].items() or pod["securityContext"]["runAsUser"] == 0:
        found.append("pod.securityContext")
    if container["securityContext"] != {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }:
        found.append("container.securityContext")
    if pod["automountServiceAccountToken"] is not False:
        found.append("automountServiceAccountToken")
    [given] = [volume for volume in pod["volumes"] if "downwardAPI" in volume]
    if given["name"] != "input":
        found.append("more of the pod's own metadata")
    for volume in pod["volumes"]:
        if not volume.keys() - {"name"} <= SAFE_VOLUMES or len(volume) != 2:
            found.append(f"volume {volume}")
        if "projected" in volume and volume["name"] != "progress":
            found.append("a second token")
    found += [
        f"mount {mount}" for mount in container["volumeMounts"] if mount.keys() - {"name", "mountPath", "readOnly"}
    ]
    if any("hostPort" in port for port in container["ports"]):
        found.append("hostPort")
    return found + _shadowed(container) + _unsafe_metadata(job)


def _unsafe_metadata(job: Manifest) -> list[str]:
    """Keys that mean something to Kubernetes, a queue or a container runtime, beside those every pod has."""
    metadata = job["spec"]["template"]["metadata"]
    added = (metadata["labels"].keys() | metadata["annotations"].keys()) - job["metadata"]["labels"].keys()
    harmless = {
        "prometheus.io/scrape",
        "prometheus.io/port",
        "prometheus.io/path",
        INPUT_ANNOTATION,
        ISOLATED_LABEL,
        *ALLOWED_ANNOTATIONS,
    }
    return [key for key in added - harmless if "k8s.io" in key or "kubernetes" in key or "hatchery" in key]


def _shadowed(container: Manifest) -> list[str]:
    names = [variable["name"] for variable in container["env"]]
    paths = [mount["mountPath"] for mount in container["volumeMounts"]]
    shadows = [
        f"{path} {other}" for path in paths for other in paths if path != other and f"{other}/".startswith(f"{path}/")
    ]
    return [name for name in {*names, *paths} if (names + paths).count(name) > 1] + shadows


@pytest.mark.parametrize(("kind", "stage"), STAGES_OF_KINDS)
@settings(deadline=None, max_examples=60)
@given(placement=GOOD_PLACEMENTS)
def test_no_accepted_override_makes_a_pod_unsafe(kind: str, stage: str, placement: Any) -> None:
    job = job_of(kind, stage, placement)
    assert unsafe(job) == []
    assert job["spec"]["template"]["metadata"]["labels"].items() >= job["metadata"]["labels"].items() - {
        ("kueue.x-k8s.io/queue-name", placement.get("queueName"))
    }


@settings(deadline=None, max_examples=1500)
@given(which=st.sampled_from(STAGES_OF_KINDS), placement=JUNK_PLACEMENTS)
@example(which=("CorpusBuild", "build"), placement={"podOverrides": {"volumes": [{"hostPath": {"path": "/"}}]}})
def test_junk_is_refused_whole_or_harmless(which: tuple[str, str], placement: Any) -> None:
    """An attacker's words anywhere in a placement: either no object is made at all, or its pod is as safe as any."""
    try:
        job = job_of(*which, placement)
    except ValidationError:
        refused = parse_run(manifest(which[0], placement=placement))
        decided = plan(refused, Observed(NOW, {}, REFERENCES), SETTINGS)
        condition = find_condition(decided.status.conditions, ConditionType.SUCCEEDED)
        assert created(decided) == ()
        assert condition
        assert (condition.status, condition.reason) == ("False", Reason.INVALID_SPEC)
        assert "spec.placement" in condition.message
    else:
        assert unsafe(job) == []


REFERENCES = by_key(
    finished("CorpusBuild", "corpus"), finished("TokenizerBuild", "tokenizer"), finished("PretrainRun", "model")
)


@settings(deadline=None, max_examples=300)
@given(good=GOOD_OVERRIDES, place=st.sampled_from(["env", "volumes", "resourceClaims", "imagePullSecrets"]), junk=JUNK)
def test_one_bad_item_refuses_all_the_good_ones(good: Any, place: str, junk: Any) -> None:
    PodOverrides.model_validate(good)
    try:
        PodOverrides.model_validate({place: [junk]})
    except ValidationError:
        with pytest.raises(ValidationError):
            PodOverrides.model_validate({**good, place: [*good.get(place, []), junk]})
    else:
        assume(False)  # by chance it is good


@pytest.mark.parametrize(("kind", "stage"), STAGES_OF_KINDS)
def test_every_variable_and_path_of_the_operator_is_reserved(kind: str, stage: str) -> None:
    hub = {"repo": "o/m", "tokenSecret": {"name": "s"}, "endpoint": "http://hub.local"}
    run = parse_run(manifest(kind, hub=hub))
    assert run.spec
    [definition] = [one for one in STAGES[kind] if one.name == stage]
    shape = replace(definition.shape(run.spec), nodes=2)
    [*_, job] = manifests(Attempt(run, run.spec, stage, 1, shape), SETTINGS)
    [container] = job["spec"]["template"]["spec"]["containers"]
    for variable in container["env"]:
        assert re.search(RESERVED_VARIABLES, variable["name"]), variable
    for mount in container["volumeMounts"]:
        assert re.search(RESERVED_PATHS, mount["mountPath"]), mount


REFUSED = [
    ({"env": [{"name": "HF_TOKEN", "value": "x"}]}, "env.0.name", "choose another"),
    ({"env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]}, "env.0.name", "choose another"),
    ({"env": [{"name": "CUDA_VISIBLE_DEVICES", "value": "0"}]}, "env.0.name", "choose another"),
    ({"env": [{"name": "A"}]}, "env.0", "exactly one of value, valueFrom"),
    ({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]}, "fieldRef", "not permitted"),
    ({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}, "", "A appears twice"),
    (
        {"volumes": [{"name": "a", "mountPath": "/mnt/a", "hostPath": {"path": "/"}}]},
        "volumes.0.hostPath",
        "not permitted",
    ),
    ({"volumes": [{"name": "a", "mountPath": "/mnt/a"}]}, "volumes.0", "exactly one of configMap, secret"),
    ({"volumes": [{"name": "a", "mountPath": "/etc", "emptyDir": {}}]}, "volumes.0.mountPath", "mount elsewhere"),
    ({"volumes": [{"name": "a", "mountPath": "/var/run/secrets", "emptyDir": {}}]}, "mountPath", "mount elsewhere"),
    ({"volumes": [{"name": "a", "mountPath": "/mnt/../tmp", "emptyDir": {}}]}, "mountPath", "pattern"),
    ({"labels": {"kueue.x-k8s.io/queue-name": "q"}}, "labels", "your own domain"),
    ({"labels": {"batch.kubernetes.io/job-name": "other"}}, "labels", "your own domain"),
    ({"labels": {"job-name": "other"}}, "labels", "your own domain"),
    ({"labels": {"hatchery.dev/uid": "other"}}, "labels", "your own domain"),
    ({"labels": {"team": "not a value"}}, "labels", "is not a valid label"),
    ({"annotations": {"io.kubernetes.cri-o.Devices": "/dev/fuse"}}, "annotations", "allowed are"),
    ({"annotations": {"cdi.k8s.io/gpus": "nvidia.com/gpu=all"}}, "annotations", "allowed are"),
    ({"serviceAccountName": "admin"}, "serviceAccountName", "not permitted"),
    ({"resourceClaims": [{"name": "gpu"}]}, "resourceClaims.0", "exactly one of resourceClaimName"),
]


@pytest.mark.parametrize(("overrides", "field", "advice"), REFUSED, ids=lambda value: str(value)[:60])
def test_a_refusal_names_the_field_and_what_to_do(overrides: Any, field: str, advice: str) -> None:
    run = parse_run(manifest(placement={"podOverrides": overrides}))
    assert run.spec is None
    assert run.invalid.startswith("spec.placement.podOverrides")
    assert field in run.invalid
    assert advice in run.invalid


def test_what_is_accepted_reaches_the_pod() -> None:
    overrides = {
        "env": [
            {"name": "NCCL_DEBUG", "value": "INFO"},
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ],
        "volumes": [
            {"name": "ca", "mountPath": "/etc/ssl/own", "configMap": {"name": "ca"}, "readOnly": True},
            {"name": "scratch", "mountPath": "/scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        ],
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}],
        "labels": {"example.com/team": "nlp"},
        "annotations": {"karpenter.sh/do-not-disrupt": "true"},
        "imagePullSecrets": [{"name": "registry"}],
        "schedulerName": "volcano",
        "topologySpreadConstraints": [{"maxSkew": 1}],
        "shmSize": "16Gi",
    }
    template = job_of("PretrainRun", "train", {"podOverrides": overrides})["spec"]["template"]
    pod, metadata = template["spec"], template["metadata"]
    [container] = pod["containers"]
    assert [one for one in container["env"] if one in overrides["env"]] == overrides["env"]
    assert {"name": "user-ca", "configMap": {"name": "ca"}} in pod["volumes"]
    assert {"name": "user-ca", "mountPath": "/etc/ssl/own", "readOnly": True} in container["volumeMounts"]
    assert {"name": "user-scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}} in pod["volumes"]
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Gi"}} in pod["volumes"]
    assert container["resources"]["claims"] == [{"name": "gpu"}]
    as_they_are = ("resourceClaims", "imagePullSecrets", "schedulerName", "topologySpreadConstraints")
    assert {name: pod[name] for name in as_they_are} == {name: overrides[name] for name in as_they_are}
    assert metadata["labels"]["example.com/team"] == "nlp"
    assert metadata["annotations"]["karpenter.sh/do-not-disrupt"] == "true"


def test_labels_of_the_user_are_on_the_pods_alone() -> None:
    job = job_of("CorpusBuild", "build", {"podOverrides": {"labels": {"team": "nlp"}}})
    assert "team" not in job["metadata"]["labels"]


def test_encoding_holds_no_devices() -> None:
    placement = {
        "resources": {"limits": {"nvidia.com/gpu": 8, "memory": "8Gi"}},
        "podOverrides": {"resourceClaims": [{"name": "gpu", "resourceClaimName": "one"}]},
    }
    pod = job_of("PretrainRun", "encode", placement)["spec"]["template"]["spec"]
    assert "resourceClaims" not in pod
    assert pod["containers"][0]["resources"] == {"requests": {"cpu": "500m"}, "limits": {"memory": "8Gi"}}
