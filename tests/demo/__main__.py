"""`python -m tests.demo`: the whole product on a real cluster, from scratch.

It starts the local cluster (or uses the one of HATCHERY_KUBECONTEXT), builds the images, installs the chart, starts a
Hub-compatible server, applies the sample pipeline, watches it, and summarizes the results. The next run reuses cluster
and images; namespace, volume and Hub repositories are new each time, so that no earlier artifact replaces work. After a
failure everything is kept for inspection.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from tests.cluster.cluster import Cluster
from tests.cluster.console import say
from tests.cluster.errors import ClusterError
from tests.cluster.images import ensure_images
from tests.cluster.layout import REPOSITORY
from tests.cluster.prometheus import Prometheus, ensure_prometheus
from tests.cluster.tools import ensure_tools
from tests.support.kube.deploy import install_chart, start_hub
from tests.support.kube.installation import HUB_NAMESPACE, HUB_PORT, HUB_TOKEN, HUB_URL, TOKEN_SECRET, namespace_objects
from tests.support.kube.kubectl import Kube

from hatchery_api.format import significant
from hatchery_cli import CommandError, Exit, KubeCluster, RunView, Watch, chosen, console, read_from_hub, show_summary

NAMESPACE = "demo"
SAMPLE = REPOSITORY / "manifests/samples/pipeline.yaml"
REPOSITORIES = {
    "CorpusBuild": "stdlib",
    "TokenizerBuild": "stdlib-tokenizer",
    "PretrainRun": "stdlib-gpt2",
    "EvalRun": "stdlib-evaluation",
}
PIPELINE_SECONDS = 1800.0
"""Timeout of the pipeline, which takes about two and a half minutes on two cores."""


class DemoError(Exception):
    """The demo failed; the message says what failed and where to look."""


@contextmanager
def phase(what: str, why: str) -> Iterator[None]:
    """Announces a phase and its purpose, and reports its duration."""
    say(f"==> {what}: {why}")
    began = time.monotonic()
    yield
    say(f"    {what}: {time.monotonic() - began:.1f} s")


def fresh_namespace(cluster: Cluster, kube: Kube) -> None:
    """Deletes the namespace of an earlier demo and creates a new one, with a claim and the Hub's token."""
    kube.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait", "--timeout=120s")
    cluster.recycle()
    kube.apply(*namespace_objects(NAMESPACE))


def pipeline_with_hub(folder: Path, organisation: str) -> Path:
    """The sample with a `hub` section in each resource; returns the file to apply."""
    resources = list(yaml.safe_load_all(SAMPLE.read_text()))
    for resource in resources:
        resource["spec"]["hub"] = {
            "repo": f"{organisation}/{REPOSITORIES[resource['kind']]}",
            "endpoint": HUB_URL,
            "tokenSecret": {"name": TOKEN_SECRET},
        }
    path = folder / "demo-pipeline.yaml"
    path.write_text(yaml.safe_dump_all(resources, sort_keys=False))
    return path


def loss_in_prometheus(prometheus: Prometheus, run: RunView, seconds: float) -> None:
    """Queries Prometheus for the loss that the training pods exposed."""
    window = f"[{int(seconds)}s]"
    series = f'hatchery_train_loss{{namespace="{run.namespace}",run="{run.name}",split="train"}}'
    for about, expression in (
        ("highest training loss scraped", f"max(max_over_time({series}{window}))"),
        ("lowest training loss scraped", f"min(min_over_time({series}{window}))"),
        ("scrapes of it", f"sum(count_over_time({series}{window}))"),
    ):
        found = prometheus.query(expression)
        if not found:
            raise DemoError(f"Prometheus at {prometheus.address} has nothing for {expression}")
        value = float(found[0]["value"][1])
        print(f"  {about:32} {significant(int(value) if value.is_integer() else value):>9}   {expression}")


def summarize(kube: Kube, runs: list[RunView]) -> None:
    """Prints the results; the curve is read back from the Hub through a forwarded port."""
    curves = {}
    with kube.forward(HUB_NAMESPACE, "service/hub", HUB_PORT) as address:
        for run in runs:
            if run.kind.kind == "PretrainRun" and run.status.hub:
                curves[run.label] = read_from_hub(run.status.hub, f"http://{address}", HUB_TOKEN)
    show_summary(runs, curves)


def demo() -> None:
    """The phases in order."""
    cluster = Cluster()
    with phase("cluster", "a real Kubernetes; the first run builds it from its Go modules, 10 minutes on 2 cores"):
        kubeconfig = cluster.up()
        kube = Kube(kubeconfig, [str(ensure_tools(cluster.layout) / "kube"), "kubectl"])
        # an existing cluster has its own Prometheus, with its own targets
        prometheus = None if cluster.context else ensure_prometheus(cluster.layout)
    with phase("images", "operator and jobs (torch, 6 GB the first time); unchanged ones are not rebuilt"):
        images = ensure_images(cluster.layout)
    with phase("Hub", "a Hub-compatible server in the cluster; results are pushed to it"):
        start_hub(kube, images["jobs"])
    with phase("fresh namespace", "deletes an earlier demo's runs and volume, so that everything is computed"):
        fresh_namespace(cluster, kube)
    with phase("operator", "helm install; ready when it has listed every kind"):
        install_chart(cluster, kube, images)
    began = time.monotonic()
    with phase("pipeline", "corpus, tokenizer, training on two pods, evaluation, in one kubectl apply"):
        path = pipeline_with_hub(cluster.layout.cache, f"demo-{int(time.time())}")
        say(f"kubectl apply -n {NAMESPACE} -f {path}   ({SAMPLE.relative_to(REPOSITORY)} plus a hub section)")
        kube.kubectl("apply", "-n", NAMESPACE, "-f", str(path))
        ended = Watch(
            KubeCluster(kubeconfig=str(kubeconfig)), console(), NAMESPACE, timeout_seconds=PIPELINE_SECONDS
        ).run()
    if ended != Exit.OK:
        raise DemoError("the pipeline failed; see above")
    runs = chosen(map(RunView.of, KubeCluster(kubeconfig=str(kubeconfig)).list(NAMESPACE)), ())
    summarize(kube, runs)
    if prometheus:
        print(f"\nThe loss in Prometheus at {prometheus.address}")
        loss_in_prometheus(prometheus, next(r for r in runs if r.kind.kind == "PretrainRun"), time.monotonic() - began)


def main() -> int:
    """Runs the demo and returns the exit code."""
    try:
        demo()
    except (DemoError, ClusterError, CommandError, AssertionError, OSError) as error:
        kept = "everything is kept for inspection"
        say(
            f"the demo failed: {error}\n{kept}: export KUBECONFIG={Cluster().layout.kubeconfig}; kubectl -n {NAMESPACE} get all,hatchery"
        )
        return 1
    except KeyboardInterrupt:
        say(f"interrupted; the runs keep running: hatchery watch --all -n {NAMESPACE}")
        return int(Exit.DETACHED)
    say("done: from raw text to an evaluated model; explore it with the commands above")
    return 0


if __name__ == "__main__":
    sys.exit(main())
