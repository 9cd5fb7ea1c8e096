"""Dashboard Run: one PretrainRun, for those who train a model."""

from grafana_foundation_sdk.models.dashboard import Dashboard
from manifests.monitoring.panels import Query, graph, label_variable, number, page

RUN = 'namespace="$namespace",name="$name"'
RESOURCE = f'kind="PretrainRun",{RUN}'


def _rate(metric: str) -> str:
    return f"sum(rate(hatchery_train_{metric}{{{RUN}}}[$__rate_interval]))"


def _quantile(share: float, metric: str) -> str:
    return f"histogram_quantile({share}, sum by (le) (rate(hatchery_train_{metric}_bucket{{{RUN}}}[$__rate_interval])))"


def _latest(metric: str, labels: str = "") -> str:
    """A gauge of the current pod; while pods of two attempts are scraped, that of the one further ahead."""
    return f"max(hatchery_train_{metric}{{{RUN}{labels}}})"


def _loss(split: str) -> Query:
    """The loss from the pod, or from the operator once the pod is gone."""
    live = _latest("loss", f',split="{split}"')
    return Query(f'{live} or max(hatchery_run_loss{{{RESOURCE},split="{split}"}})')


def run() -> Dashboard:
    """Builds the dashboard."""
    step, target = _latest("step"), f"max(hatchery_run_target_steps{{{RESOURCE}}})"
    done = f'max(hatchery_resource_phase{{{RESOURCE},phase="Succeeded"}} == 1)'
    now = [
        number(
            "Phase",
            "Current phase.",
            "short",
            Query(f"hatchery_resource_phase{{{RESOURCE}}} == 1", "{{phase}}"),
            names=True,
        ),
        number(
            "Stage",
            "Current stage.",
            "short",
            Query(f"hatchery_run_current_stage{{{RESOURCE}}}", "{{stage}}"),
            names=True,
        ),
        number(
            "Progress",
            "Completed share of the steps; while the corpus is encoded, of the documents.",
            "percentunit",
            Query(f"{step} / {target} or {done} or max(hatchery_run_progress_ratio{{{RESOURCE}}})"),
        ),
        number(
            "Time left",
            "At the current speed, excluding evaluations and checkpoints.",
            "s",
            Query(f"({target} - {step}) / {_rate('steps_total')}"),
        ),
        number("Training loss", "Nats per token at the last step.", "short", _loss("train")),
        number(
            "Validation loss",
            "Nats per token at the last evaluation.",
            "short",
            _loss("validation"),
        ),
    ]
    learning = [
        graph(
            "Loss",
            "Cross-entropy in nats per token.",
            "short",
            Query(f"max by (split) (hatchery_train_loss{{{RUN}}})", "{{split}}"),
            width=24,
        ),
        graph("Learning rate", "At the last step.", "sci", Query(_latest("learning_rate"), "learning rate"), width=12),
        graph(
            "Gradient norm",
            "Before clipping, at the last step.",
            "short",
            Query(_latest("gradient_norm"), "norm"),
            width=12,
        ),
    ]
    speed = [
        graph("Throughput", "Training tokens per second.", "cps", Query(_rate("tokens_total"), "tokens/s")),
        graph(
            "Step time",
            "Median and 95th percentile.",
            "s",
            Query(_quantile(0.5, "step_duration_seconds"), "p50"),
            Query(_quantile(0.95, "step_duration_seconds"), "p95"),
        ),
        graph(
            "Data wait",
            "Share of step time spent waiting for tokens.",
            "percentunit",
            Query(f"{_rate('data_wait_seconds_total')} / {_rate('step_duration_seconds_sum')}", "data"),
        ),
        graph(
            "Step time by phase",
            "Share of step time spent in each phase.",
            "percentunit",
            Query(
                f"sum by (phase) (rate(hatchery_train_phase_seconds_total{{{RUN}}}[$__rate_interval]))"
                f" / on () group_left () {_rate('step_duration_seconds_sum')}",
                "{{phase}}",
            ),
            stacked=True,
        ),
        graph(
            "Model FLOPs utilization",
            "Share of the devices' peak FLOP/s used by the model; empty for devices with an unknown peak.",
            "percentunit",
            Query(f"{_rate('model_flops_total')} / {_latest('peak_flops')}", "MFU"),
            quiet=True,
        ),
        graph(
            "Model FLOP/s",
            "Floating-point operations of the model per second, over all devices.",
            "short",
            Query(_rate("model_flops_total"), "FLOP/s"),
        ),
        graph(
            "Goodput",
            "Share of the workers' time spent on updates that were kept, over the whole run.",
            "percentunit",
            Query(_latest("goodput_ratio"), "goodput"),
        ),
        graph(
            "Device memory of rank 0",
            "Peak since the process started; 0 without a GPU.",
            "bytes",
            Query(f"max by (state) (hatchery_train_device_memory_peak_bytes{{{RUN}}})", "{{state}}"),
        ),
        graph("Workers", "Training processes.", "short", Query(_latest("workers"), "workers")),
    ]
    safety = [
        graph(
            "Steps since the latest checkpoint",
            "Lost if the pod fails; should stay below the checkpoint interval.",
            "short",
            Query(f"{step} - {_latest('checkpoint_step')}", "since the checkpoint"),
            Query(_latest("checkpoint_interval_steps"), "interval"),
        ),
        number(
            "Age of the latest checkpoint",
            "Time since it was completed; empty until this process has written one.",
            "s",
            Query(f"time() - {_latest('checkpoint_last_success_timestamp_seconds')}"),
            tall=True,
            quiet=True,
        ),
        number(
            "Time since the last step",
            "More than a few step times indicates a stall.",
            "s",
            Query(f"time() - {_latest('last_step_timestamp_seconds')}"),
            tall=True,
            bad_from=600,
        ),
        graph(
            "Checkpoint duration",
            "95th percentile.",
            "s",
            Query(_quantile(0.95, "checkpoint_duration_seconds"), "p95"),
            quiet=True,
        ),
        graph(
            "Attempts",
            "Jobs created, failed attempts, and pods lost to eviction, preemption or drain.",
            "short",
            Query(f"hatchery_run_attempts{{{RESOURCE}}}", "attempts"),
            Query(f"hatchery_run_failures{{{RESOURCE}}}", "failures"),
            Query(f"hatchery_run_disruptions{{{RESOURCE}}}", "disruptions"),
        ),
        graph(
            "Interventions and failures",
            "Skipped batches, rollbacks, non-finite losses, failed checkpoints and pushes since the process started.",
            "short",
            Query(f"sum by (action) (hatchery_train_interventions_total{{{RUN}}})", "{{action}}"),
            Query(f"sum(hatchery_train_nonfinite_loss_total{{{RUN}}})", "non-finite losses"),
            Query(f"sum(hatchery_train_checkpoint_failures_total{{{RUN}}})", "failed checkpoints"),
            Query(f'sum(hatchery_train_hub_pushes_total{{{RUN},result="failure"}})', "failed pushes"),
        ),
        graph(
            "Steps since the latest push to the Hub",
            "Equals the step if the run does not push.",
            "short",
            Query(f"{step} - {_latest('hub_step')}", "since the push"),
        ),
        graph(
            "Memory of rank 0",
            "Resident memory, excluding device memory.",
            "bytes",
            Query(f"max(process_resident_memory_bytes{{{RUN}}})", "resident"),
        ),
        graph(
            "CPU of rank 0",
            "Average CPU usage in cores.",
            "short",
            Query(f"sum(rate(process_cpu_seconds_total{{{RUN}}}[$__rate_interval]))", "cores"),
        ),
    ]
    return page(
        "hatchery-run",
        "Hatchery / Run",
        "Loss, speed, checkpoints and failures of one PretrainRun.",
        [
            label_variable(
                "namespace", "Namespace", 'hatchery_resource_phase{kind="PretrainRun"}, namespace', several=False
            ),
            label_variable(
                "name",
                "PretrainRun",
                'hatchery_resource_phase{kind="PretrainRun",namespace="$namespace"}, name',
                several=False,
            ),
        ],
        {"Now": now, "Learning": learning, "Speed": speed, "Checkpoints and pods": safety},
    )
