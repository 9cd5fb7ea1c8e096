"""Pods of any spec that is accepted, on a real API server with Pod Security set to restricted."""

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from tests.support.operator.builders import SPECS, manifest
from tests.support.operator.pod_overrides import GOOD_PLACEMENTS
from tests.support.operator.process import Team

from hatchery_api.kinds import BY_KIND, KINDS
from hatchery_operator.domain.attempt import Attempt
from hatchery_operator.domain.objects import parse_run
from hatchery_operator.manifests import manifests
from hatchery_operator.settings import Progress, Settings
from hatchery_operator.stages import STAGES

pytestmark = pytest.mark.apiserver

SETTINGS = Settings(progress=Progress(service_url="https://hatchery.system.svc:8443"))
STAGES_OF_KINDS = [(kind.kind, stage.name) for kind in KINDS for stage in STAGES[kind.kind]]
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
SERVER_SETS = ("priorityClassName", "runtimeClassName")
"""Fields that name objects of the cluster, which do not exist here."""
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def restricted(api) -> Team:
    team = Team(api.request, "restricted")
    team.send("PATCH", f"/api/v1/namespaces/{team.name}", {"metadata": {"labels": RESTRICTED}})
    return team


def pod_of(team: Team, kind: str, stage: str, placement: Any) -> dict[str, Any]:
    source = manifest(kind, placement=placement)
    source["metadata"]["namespace"] = team.name
    run = parse_run(source)
    assert run.spec
    [definition] = [one for one in STAGES[kind] if one.name == stage]
    job = manifests(Attempt(run, run.spec, stage, 1, definition.shape(run.spec)), SETTINGS)[-1]
    template = job["spec"]["template"]
    spec = {name: value for name, value in template["spec"].items() if name not in SERVER_SETS}
    return {"metadata": {"name": f"p{next(NUMBERS)}", **template["metadata"]}, "spec": spec}


@pytest.mark.parametrize(("kind", "stage"), STAGES_OF_KINDS)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(placement=GOOD_PLACEMENTS)
def test_every_pod_is_admitted_where_pod_security_is_restricted(restricted, kind, stage, placement) -> None:
    pod = pod_of(restricted, kind, stage, placement)
    admitted = restricted.send("POST", restricted.core("pods"), pod, dryRun="All")
    # nothing was taken out or put in: an account's token would be a volume more
    assert len(admitted["spec"]["volumes"]) == len(pod["spec"]["volumes"])


@pytest.mark.parametrize("kind", SPECS)
@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(placement=GOOD_PLACEMENTS)
def test_what_the_model_accepts_the_definition_accepts(restricted, kind, placement) -> None:
    body = {
        "apiVersion": "hatchery.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "any"},
        "spec": {**SPECS[kind], "placement": placement},
    }
    stored = restricted.send("POST", restricted.path(kind), body, dryRun="All", fieldValidation="Strict")
    model = BY_KIND[kind].spec
    assert model.model_validate(stored["spec"]) == model.model_validate(body["spec"])


@pytest.mark.parametrize(
    "change",
    [
        {"hostNetwork": True},
        {"securityContext": {"runAsNonRoot": False}},
        {"volumes": [{"name": "h", "hostPath": {"path": "/"}}]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_namespace_does_refuse_what_is_not_restricted(restricted, change) -> None:
    """The tests above would pass anywhere; this shows that the namespace judges."""
    pod = pod_of(restricted, "CorpusBuild", "build", {})
    pod["spec"] |= {"containers": [{**pod["spec"]["containers"][0], "volumeMounts": []}], **change}
    answer = restricted.send("POST", restricted.core("pods"), pod, expect=403, dryRun="All")
    assert "violates PodSecurity" in answer["message"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ({"env": [{"name": "HF_TOKEN", "value": "x"}]}, "this variable is reserved"),
        ({"env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]}, "this variable is reserved"),
        ({"volumes": [{"name": "a", "mountPath": "/claims", "emptyDir": {}}]}, "mount elsewhere"),
        ({"serviceAccountName": "admin"}, "unknown field"),
    ],
)
def test_an_override_that_is_not_the_users_is_refused_when_it_is_applied(restricted, override, words) -> None:
    body = {
        "apiVersion": "hatchery.dev/v1alpha1",
        "kind": "CorpusBuild",
        "metadata": {"name": "any"},
        "spec": {**SPECS["CorpusBuild"], "placement": {"podOverrides": override}},
    }
    status, answer = restricted._request("POST", restricted.path("CorpusBuild"), body, fieldValidation="Strict")
    assert status in (400, 422)
    assert words in answer["message"]
    assert "spec.placement.podOverrides" in answer["message"]
