"""`python -m tests.demo`: the whole product at work on a real cluster, from nothing.

It starts the local cluster (or uses the one of HATCHERY_KUBECONTEXT), builds the images, installs the chart, starts a
Hub-compatible server, applies the sample pipeline, shows it live, and sums up. Cluster and images are used again by the
next run; the namespace, its volume and the Hub's repositories are new each time, so that no artifact of an earlier run
stands in for work. After a failure everything is left for inspection.
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
"""Longest time the pipeline may take; about two and a half minutes on two cores."""


class DemoError(Exception):
    """The demo did not show what it should; the message says what and where to look."""


@contextmanager
def phase(what: str, why: str) -> Iterator[None]:
    """Says what comes and why, and how long it took."""
    say(f"==> {what}: {why}")
    began = time.monotonic()
    yield
    say(f"    {what}: {time.monotonic() - began:.1f} s")


def fresh_namespace(cluster: Cluster, kube: Kube) -> None:
    """Removes what an earlier demo left, then makes the namespace of the runs with a claim and the Hub's token."""
    kube.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait", "--timeout=120s")
    cluster.recycle()
    kube.apply(*namespace_objects(NAMESPACE))


def pipeline_with_hub(folder: Path, organisation: str) -> Path:
    """The sample with a `hub` section in each resource; gives the file to apply."""
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
    """Asks Prometheus for the loss as the training pods exposed it, and as the operator exports it."""
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
        print(f"  {about:32} {float(found[0]['value'][1]):9.3f}   {expression}")


def sum_up(kube: Kube, runs: list[RunView]) -> None:
    """Prints what the runs brought; the curve is read back from the Hub, through a forwarded port."""
    curves = {}
    with kube.forward(HUB_NAMESPACE, "service/hub", HUB_PORT) as address:
        for run in runs:
            if run.kind.kind == "PretrainRun" and run.status.hub:
                curves[run.label] = read_from_hub(run.status.hub, f"http://{address}", HUB_TOKEN)
    show_summary(runs, curves)


def demo() -> None:
    """The phases in their order."""
    cluster = Cluster()
    with phase("cluster", "a real Kubernetes; the first time it is built from its Go modules, 10 minutes on 2 cores"):
        kubeconfig = cluster.up()
        kube = Kube(kubeconfig, [str(ensure_tools(cluster.layout) / "kube"), "kubectl"])
        # somebody's own cluster has a Prometheus of its own, with targets of its own
        prometheus = None if cluster.context else ensure_prometheus(cluster.layout)
    with phase(
        "images", "the operator's and the jobs' (torch, 6 GB the first time); unchanged ones are not built again"
    ):
        images = ensure_images(cluster.layout)
    with phase("Hub", "a server that speaks the Hub's protocol, in the cluster; results are pushed to it"):
        start_hub(kube, images["jobs"])
    with phase("fresh namespace", "an earlier demo's runs and volume go, so that everything is computed anew"):
        fresh_namespace(cluster, kube)
    with phase("operator", "helm install; ready when it has listed all four kinds"):
        install_chart(cluster, kube, images)
    began = time.monotonic()
    with phase("pipeline", "corpus, tokenizer, training on two pods, evaluation; one kubectl apply for all four"):
        path = pipeline_with_hub(cluster.layout.cache, f"demo-{int(time.time())}")
        say(f"kubectl apply -n {NAMESPACE} -f {path}   ({SAMPLE.relative_to(REPOSITORY)} plus a hub section)")
        kube.kubectl("apply", "-n", NAMESPACE, "-f", str(path))
        ended = Watch(
            KubeCluster(kubeconfig=str(kubeconfig)), console(), NAMESPACE, timeout_seconds=PIPELINE_SECONDS
        ).run()
    if ended != Exit.OK:
        raise DemoError("the pipeline did not succeed; see above")
    runs = chosen(map(RunView.of, KubeCluster(kubeconfig=str(kubeconfig)).list(NAMESPACE)), ())
    sum_up(kube, runs)
    if prometheus:
        print(f"\nWhat Prometheus at {prometheus.address} saw of the loss")
        loss_in_prometheus(prometheus, next(r for r in runs if r.kind.kind == "PretrainRun"), time.monotonic() - began)


def main() -> int:
    """Runs the demo; gives the exit code."""
    try:
        demo()
    except (DemoError, ClusterError, CommandError, AssertionError, OSError) as error:
        kept = "everything is kept for inspection"
        say(
            f"the demo failed: {error}\n{kept}: export KUBECONFIG={Cluster().layout.kubeconfig}; kubectl -n {NAMESPACE} get all,hatchery"
        )
        return 1
    except KeyboardInterrupt:
        say(f"interrupted; the runs go on: hatchery watch --all -n {NAMESPACE}")
        return int(Exit.DETACHED)
    say("done: from raw text to an evaluated model; look around with the commands above")
    return 0


if __name__ == "__main__":
    sys.exit(main())
