"""The objects of an attempt."""

import json
from typing import Any

import pytest
from tests.support.operator.builders import SPECS, ended, report, run

from hatchery_api.conditions import Reason
from hatchery_api.contract import INPUT_PATH, PERMANENT, ExitCode, JobInput
from hatchery_api.kinds import KINDS
from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_api.status import InputRecord
from hatchery_operator.diagnosis.pod_exit import first_failure
from hatchery_operator.domain.attempt import Attempt
from hatchery_operator.domain.objects import Manifest, Run
from hatchery_operator.domain.spec_paths import SpecPaths
from hatchery_operator.manifests import manifests
from hatchery_operator.manifests.job import failure_rules
from hatchery_operator.settings import Progress, Settings
from hatchery_operator.stages import STAGES

SETTINGS = Settings(progress=Progress(service_url="https://hatchery.system.svc:8443"))
ALL_STAGES = [(kind.kind, stage) for kind in KINDS for stage in kind.stages]


def work(
    kind: str = "CorpusBuild", stage: str | None = None, attempt: int = 1, inputs: Any = (), **spec: Any
) -> Attempt:
    subject: Run = run(kind, "code", **spec)
    assert subject.spec
    definition = next(s for s in STAGES[kind] if stage in (None, s.name))
    shape = definition.shape(subject.spec)
    return Attempt(subject, subject.spec, definition.name, attempt, shape, tuple(inputs))


def made(one: Attempt, settings: Settings = SETTINGS) -> dict[str, Manifest]:
    return {manifest["kind"]: manifest for manifest in manifests(one, settings)}


def input_of(one: Attempt) -> str:
    """The text of the file that the pod reads, as its downward API volume projects it."""
    [item] = next(v["downwardAPI"]["items"] for v in pod_of(one)["volumes"] if v["name"] == "input")
    [mount] = [m for m in container_of(one)["volumeMounts"] if m["name"] == "input"]
    assert f"{mount['mountPath']}/{item['path']}" == INPUT_PATH
    annotations: dict[str, str] = made(one)["Job"]["spec"]["template"]["metadata"]["annotations"]
    [text] = [v for k, v in annotations.items() if item["fieldRef"]["fieldPath"] == f"metadata.annotations['{k}']"]
    return text


def pod_of(one: Attempt, settings: Settings = SETTINGS) -> Manifest:
    spec: Manifest = made(one, settings)["Job"]["spec"]["template"]["spec"]
    return spec


def container_of(one: Attempt, settings: Settings = SETTINGS) -> Manifest:
    [container] = pod_of(one, settings)["containers"]
    assert isinstance(container, dict)
    return container


def environment(one: Attempt, settings: Settings = SETTINGS) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "from elsewhere") for entry in container_of(one, settings)["env"]}


@pytest.mark.parametrize(("kind", "stage"), ALL_STAGES)
def test_every_pod_meets_the_restricted_standard(kind: str, stage: str) -> None:
    pod, container = pod_of(work(kind, stage)), container_of(work(kind, stage))
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostAliases"} & set(pod)
    allowed = {"downwardAPI", "emptyDir", "persistentVolumeClaim", "projected"}
    assert {next(iter(set(volume) - {"name"})) for volume in pod["volumes"]} <= allowed
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["restartPolicy"] == "Never"


@pytest.mark.parametrize(("kind", "stage"), ALL_STAGES)
def test_every_mount_has_its_volume_and_no_two_are_in_one_place(kind: str, stage: str) -> None:
    one = work(kind, stage)
    volumes = {volume["name"] for volume in pod_of(one)["volumes"]}
    mounts = container_of(one)["volumeMounts"]
    assert {mount["name"] for mount in mounts} == volumes
    assert len({mount["mountPath"] for mount in mounts}) == len(mounts)
    assert {"/tmp", "/dev/shm", "/etc/hatchery", "/claims/hatchery"} <= {mount["mountPath"] for mount in mounts}


@pytest.mark.parametrize(("kind", "stage"), ALL_STAGES)
def test_the_pod_reads_its_input_back_as_it_was_applied(kind: str, stage: str) -> None:
    one = work(kind, stage, retry={"maxAttempts": 7})
    [model] = [k.spec for k in KINDS if k.kind == kind]
    read = JobInput[model].model_validate_json(input_of(one))  # type: ignore[valid-type]
    assert read.spec == one.spec
    assert (read.kind, read.stage, read.attempt, read.name) == (kind, stage, 1, "code")


@pytest.mark.parametrize(("kind", "stage"), ALL_STAGES)
def test_all_objects_are_ours_and_carry_only_our_labels(kind: str, stage: str) -> None:
    one = work(kind, stage, attempt=3)
    objects = list(made(one).values())
    template = made(one)["Job"]["spec"]["template"]
    for manifest in objects:
        assert manifest["metadata"]["name"] == f"code-{stage}-a3"
        [owner] = manifest["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == (kind, one.run.uid, True)
    of_pods = dict(template["metadata"]["labels"])
    assert of_pods.pop("hatchery.dev/isolated") == "true"
    for labels in (*(manifest["metadata"]["labels"] for manifest in objects), of_pods):
        assert labels == {
            "hatchery.dev/kind": kind,
            "hatchery.dev/name": "code",
            "hatchery.dev/uid": one.run.uid,
            "hatchery.dev/stage": stage,
            "hatchery.dev/attempt": "3",
            "app.kubernetes.io/managed-by": "hatchery",
        }


def action_for(code: int) -> str:
    """What a Job controller does on an exit code."""
    for rule in failure_rules():
        if code in rule.get("onExitCodes", {}).get("values", []):
            return str(rule["action"])
    return "Count"


@pytest.mark.parametrize("code", [code for code in ExitCode if code != ExitCode.DONE])
def test_the_job_controller_and_the_planner_read_exit_codes_alike(code: ExitCode) -> None:
    expected = "FailJob" if code in PERMANENT else "Ignore" if code == ExitCode.INTERRUPTED else "Count"
    assert action_for(code) == expected
    said = first_failure([ended(code, report(reason=Reason.STORAGE_ERROR, message="m", artifact=None))], SpecPaths())
    assert (said is None) == (expected == "Ignore")
    assert said is None or said.permanent == (expected == "FailJob")


def test_disruptions_are_ignored_before_exit_codes_are_counted_and_zero_is_no_rule() -> None:
    rules = failure_rules()
    assert {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]} in rules
    assert all(0 not in rule.get("onExitCodes", {}).get("values", []) for rule in rules)


def test_a_single_pod_has_no_budget_of_its_own() -> None:
    job = made(work())["Job"]["spec"]
    assert (job["completions"], job["parallelism"], job["backoffLimit"]) == (1, 1, 0)
    assert job["completionMode"] == "Indexed"
    assert "successPolicy" not in job
    assert "Service" not in made(work())


def test_a_gang_is_one_indexed_job_with_a_headless_service() -> None:
    one = work("PretrainRun", "train", parallelism={"nodes": 4, "processesPerNode": 2})
    job, service = made(one)["Job"]["spec"], made(one)["Service"]
    assert (job["completions"], job["parallelism"], job["backoffLimit"]) == (4, 4, 8)
    assert job["podReplacementPolicy"] == "Failed"
    assert job["successPolicy"] == {"rules": [{"succeededIndexes": "0"}]}
    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": "code-train-a1"}
    assert pod_of(one)["subdomain"] == service["metadata"]["name"]
    told = environment(one)
    assert told["HATCHERY_NODES"] == "4"
    assert told["HATCHERY_PROCESSES_PER_NODE"] == "2"
    assert told["HATCHERY_RENDEZVOUS_ENDPOINT"] == "code-train-a1-0.code-train-a1:29500"


def test_no_two_attempts_meet_at_one_rendezvous() -> None:
    ids = {environment(work("PretrainRun", "train", attempt=n))["HATCHERY_RENDEZVOUS_ID"] for n in (1, 2, 3)}
    assert len(ids) == 3


def test_one_node_needs_no_service_and_encoding_no_torchrun() -> None:
    assert environment(work("PretrainRun", "train"))["HATCHERY_RENDEZVOUS_ENDPOINT"] == "localhost:29500"
    assert "Service" not in made(work("PretrainRun", "train"))
    encode = work("PretrainRun", "encode", parallelism={"nodes": 4})
    assert "HATCHERY_NODES" not in environment(encode)
    assert made(encode)["Job"]["spec"]["completions"] == 1


def test_pods_that_encode_share_the_work_without_meeting() -> None:
    one = work("PretrainRun", "encode", encode={"parallelism": 3}, parallelism={"nodes": 2})
    objects = made(one)
    job = objects["Job"]["spec"]
    assert list(objects) == ["Job"]
    assert (job["completionMode"], job["completions"], job["parallelism"]) == ("Indexed", 3, 3)
    assert job["backoffLimit"] == 6
    assert "successPolicy" not in job  # every pod has something to do
    told = environment(one)
    assert told["HATCHERY_NODES"] == "3"
    assert "HATCHERY_NODE_INDEX" in told
    assert "HATCHERY_RENDEZVOUS_ENDPOINT" not in told
    assert "subdomain" not in pod_of(one)
    assert "annotations" not in objects["Job"]["metadata"]  # their number never changes


def test_training_has_the_time_to_checkpoint() -> None:
    one = work("PretrainRun", "train", checkpoint={"gracePeriod": "5m"})
    assert pod_of(one)["terminationGracePeriodSeconds"] == 300
    assert pod_of(work())["terminationGracePeriodSeconds"] == 30


def claims(one: Attempt) -> dict[str, bool]:
    by_volume = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in pod_of(one)["volumes"]
        if "persistentVolumeClaim" in volume
    }
    mounts = [mount for mount in container_of(one)["volumeMounts"] if mount["name"] in by_volume]
    assert all(mount["mountPath"] == f"/claims/{by_volume[mount['name']]}" for mount in mounts)
    return {by_volume[mount["name"]]: not mount.get("readOnly", False) for mount in mounts}


def test_claims_of_storage_inputs_and_sources_are_mounted_and_only_the_first_for_writing() -> None:
    record = InputRecord(role="corpus", kind="CorpusBuild", name="c", uri="claim://inputs/x", digest="d")
    sources = [{"name": "s", "files": {"urls": ["claim://raw/a/*.py", "/data/x", "s3://bucket/y"]}}]
    one = work(inputs=[record], sources=sources, storage={"claimName": "out"})
    assert claims(one) == {"out": True, "inputs": False, "raw": False}


def test_a_root_elsewhere_needs_no_claim() -> None:
    one = work(storage={"root": "s3://bucket/hatchery/"})
    assert claims(one) == {}
    told = json.loads(input_of(one))
    assert told["output"]["root"] == "s3://bucket/hatchery/team/corpusbuilds/code"


def test_only_pods_that_pull_or_push_get_the_token_and_only_by_reference() -> None:
    hub = {"repo": "o/m", "tokenSecret": {"name": "hub", "key": "t"}}
    assert "HF_TOKEN" not in environment(work())
    for stage in ("encode", "train"):  # encoding asks whether the run may push, while it holds no device
        [entry] = [e for e in container_of(work("PretrainRun", stage, hub=hub))["env"] if e["name"] == "HF_TOKEN"]
        assert entry["valueFrom"] == {"secretKeyRef": {"name": "hub", "key": "t"}}
    pulls = [{"name": "s", "hub": {"dataset": "o/d", "tokenSecret": {"name": "pull"}}}]
    assert "HF_TOKEN" in environment(work(sources=pulls))
    model = {"hub": {"repo": "o/m", "tokenSecret": {"name": "pull"}}}
    assert "HF_TOKEN" in environment(work("EvalRun", model=model))
    weights = {"from": {"hub": {"repo": "o/m", "tokenSecret": {"name": "pull"}}}}
    assert "HF_TOKEN" not in environment(work("PretrainRun", "encode", model=weights))
    assert "HF_TOKEN" in environment(work("PretrainRun", "train", model=weights))
    both = container_of(work("PretrainRun", "train", model=weights, hub=hub))["env"]
    assert [e["valueFrom"]["secretKeyRef"]["name"] for e in both if e["name"] == "HF_TOKEN"] == ["hub"]


def test_only_pods_that_train_get_the_key_of_their_tracker_and_only_by_reference() -> None:
    wandb = {"project": "code", "secret": {"name": "tracking", "key": "k"}}
    assert "WANDB_API_KEY" not in environment(work("PretrainRun", "train"))
    assert "WANDB_API_KEY" not in environment(work("PretrainRun", "train", tracking={"wandb": {"project": "code"}}))
    assert "WANDB_API_KEY" not in environment(work("PretrainRun", "encode", tracking={"wandb": wandb}))
    train = container_of(work("PretrainRun", "train", tracking={"wandb": wandb}))
    [entry] = [e for e in train["env"] if e["name"] == "WANDB_API_KEY"]
    assert entry == {"name": "WANDB_API_KEY", "valueFrom": {"secretKeyRef": {"name": "tracking", "key": "k"}}}


def test_a_pod_that_trains_gets_the_token_that_may_write_or_else_one_that_may_read() -> None:
    def secret(**spec: Any) -> str:
        [entry] = [e for e in container_of(work("PretrainRun", "train", **spec))["env"] if e["name"] == "HF_TOKEN"]
        return str(entry["valueFrom"]["secretKeyRef"]["name"])

    def source(name: str) -> dict[str, Any]:
        return {"repo": "o/m", "tokenSecret": {"name": name}}

    resume, weights = {"resumeFrom": source("resume")}, {"from": {"hub": source("weights")}}
    assert secret(model=weights) == "weights"
    assert secret(model=weights, checkpoint=resume) == "resume"
    assert secret(model=weights, checkpoint=resume, hub=source("push")) == "push"
    assert secret(model=weights, checkpoint={"resumeFrom": {"repo": "o/m"}}, hub={"repo": "o/m"}) == "weights"


def test_only_the_public_hub_is_spoken_to_in_its_own_protocol() -> None:
    assert "HF_HUB_DISABLE_XET" not in environment(work())
    own = environment(work(hub={"repo": "o/m", "endpoint": "http://hub.local"}))
    assert (own["HF_ENDPOINT"], own["HF_HUB_DISABLE_XET"]) == ("http://hub.local", "1")
    assert own["HF_UPDATE_DOWNLOAD_COUNTS"] == "0"


def test_progress_is_reported_with_a_token_that_opens_nothing_else() -> None:
    told = environment(work())
    assert told["KUBEFLOW_TRAINER_SERVER_URL"] == (
        "https://hatchery.system.svc:8443/apis/hatchery.dev/v1alpha1/namespaces/team/corpusbuilds/code/status"
    )
    [volume] = [v for v in pod_of(work())["volumes"] if v["name"] == "progress"]
    token, certificate = volume["projected"]["sources"]
    assert token["serviceAccountToken"]["audience"] == "hatchery.dev/progress"
    assert certificate["configMap"]["optional"] is True
    [mount] = [m for m in container_of(work())["volumeMounts"] if m["name"] == "progress"]
    assert told["KUBEFLOW_TRAINER_SERVER_TOKEN"] == f"{mount['mountPath']}/token"
    assert told["KUBEFLOW_TRAINER_SERVER_CA_CERT"] == f"{mount['mountPath']}/ca.crt"


def test_without_a_progress_service_pods_get_no_token_at_all() -> None:
    told = environment(work(), Settings())
    assert not any(name.startswith("KUBEFLOW") for name in told)
    assert not any("projected" in volume for volume in pod_of(work(), Settings())["volumes"])


def test_a_default_request_gives_way_to_a_limit_of_the_user() -> None:
    assert container_of(work())["resources"]["requests"] == {"cpu": "500m", "memory": "2Gi"}
    small = container_of(work(placement={"resources": {"limits": {"memory": "1Gi"}}}))["resources"]
    assert small == {"requests": {"cpu": "500m"}, "limits": {"memory": "1Gi"}}
    own = container_of(work(placement={"resources": {"requests": {"cpu": 2}}}))["resources"]
    assert own == {"requests": {"cpu": "2"}}


def test_placement_reaches_the_pod_as_it_is() -> None:
    placement = {
        "nodeSelector": {"gpu": "h100"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"x": [1]}},
        "priorityClassName": "high",
        "runtimeClassName": "gvisor",
    }
    pod = pod_of(work(placement=placement))
    assert {key: pod[key] for key in placement} == placement
    assert not set(placement) & set(pod_of(work()))


def test_a_queue_is_a_label_of_the_job_alone_which_waits_for_its_admission() -> None:
    job = made(work(placement={"queueName": "gpus"}))["Job"]
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert "kueue.x-k8s.io/queue-name" not in job["spec"]["template"]["metadata"]["labels"]
    assert job["spec"]["suspend"] is True
    assert "suspend" not in made(work())["Job"]["spec"]


def test_crashes_leave_their_last_lines_and_metrics_are_scraped() -> None:
    container = container_of(work())
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert container["ports"] == [{"name": "metrics", "containerPort": 9400}]
    annotations = made(work())["Job"]["spec"]["template"]["metadata"]["annotations"]
    assert (annotations["prometheus.io/scrape"], annotations["prometheus.io/port"]) == ("true", "9400")


def test_manifests_are_a_pure_function() -> None:
    assert manifests(work(), SETTINGS) == manifests(work(), SETTINGS)


def test_roles_of_the_inputs_are_those_the_jobs_ask_for() -> None:
    corpora = [{"corpusRef": {"name": name}} for name in ("a", "b", "c")]
    spec = PretrainRunSpec.model_validate({**SPECS["PretrainRun"], "corpora": corpora})
    encode, train = STAGES["PretrainRun"]
    assert [need.role for need in encode.needs(spec)] == ["corpus", "corpus-1", "corpus-2", "tokenizer"]
    assert [(need.role, need.is_own) for need in train.needs(spec)] == [("tokens", True), ("tokenizer", False)]


def test_streaming_needs_the_corpora_while_training_and_only_artifacts_are_waited_for() -> None:
    token = {"name": "hub", "key": "token"}
    corpora = [
        {"files": {"urls": ["claim://raw/a/*.py"]}},
        {"corpusRef": {"name": "b"}},
        {"hub": {"dataset": "org/d", "tokenSecret": token}},
    ]
    spec = PretrainRunSpec.model_validate(
        {**SPECS["PretrainRun"], "corpora": corpora, "data": {"loading": "streaming"}}
    )
    encode, train = STAGES["PretrainRun"]
    assert [need.role for need in encode.needs(spec)] == ["corpus-1", "tokenizer"]
    assert [need.role for need in train.needs(spec)] == ["tokens", "tokenizer", "corpus-1"]
    for stage in (encode, train):
        assert stage.shape(spec).urls == ("claim://raw/a/*.py",)
        assert stage.shape(spec).token.wire() == token
    stored = PretrainRunSpec.model_validate({**SPECS["PretrainRun"], "corpora": corpora})
    assert [need.role for need in train.needs(stored)] == ["tokens", "tokenizer"]
    assert (train.shape(stored).urls, train.shape(stored).token) == ((), None)


@pytest.mark.parametrize(
    ("weights", "roles"),
    [
        ({"pretrainRef": {"name": "base"}}, ["tokens", "tokenizer", "model"]),
        ({"hub": {"repo": "o/m"}}, ["tokens", "tokenizer"]),
    ],
)
def test_weights_of_another_run_are_an_input_of_training_alone(weights, roles) -> None:
    spec = PretrainRunSpec.model_validate({**SPECS["PretrainRun"], "model": {"from": weights}})
    encode, train = STAGES["PretrainRun"]
    assert "model" not in [need.role for need in encode.needs(spec)]
    assert [need.role for need in train.needs(spec)] == roles
    assert [(need.kind, need.name) for need in train.needs(spec)[2:]] == [("PretrainRun", "base")] * (len(roles) - 2)
