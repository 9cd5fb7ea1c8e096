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
    """A gauge of the pod that serves now; while pods of two attempts are seen, of the further one."""
    return f"max(hatchery_train_{metric}{{{RUN}{labels}}})"


def _loss(split: str) -> Query:
    """As the pod says, and when it is gone as the operator does."""
    live = _latest("loss", f',split="{split}"')
    return Query(f'{live} or max(hatchery_run_loss{{{RESOURCE},split="{split}"}})')


def run() -> Dashboard:
    """The dashboard."""
    step, target = _latest("step"), f"max(hatchery_run_target_steps{{{RESOURCE}}})"
    done = f'max(hatchery_resource_phase{{{RESOURCE},phase="Succeeded"}} == 1)'
    now = [
        number(
            "Phase",
            "What the run does.",
            "short",
            Query(f"hatchery_resource_phase{{{RESOURCE}}} == 1", "{{phase}}"),
            names=True,
        ),
        number(
            "Stage",
            "Stage at hand.",
            "short",
            Query(f"hatchery_run_current_stage{{{RESOURCE}}}", "{{stage}}"),
            names=True,
        ),
        number(
            "Progress",
            "Steps done of all steps; while the corpus is encoded, documents done of all.",
            "percentunit",
            Query(f"{step} / {target} or {done} or max(hatchery_run_progress_ratio{{{RESOURCE}}})"),
        ),
        number(
            "Time left",
            "At the speed of now, without evaluations and checkpoints.",
            "s",
            Query(f"({target} - {step}) / {_rate('steps_total')}"),
        ),
        number("Training loss", "Nats per token, last step.", "short", _loss("train")),
        number(
            "Validation loss",
            "Nats per token, last measurement.",
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
        graph("Learning rate", "Of the last step.", "sci", Query(_latest("learning_rate"), "learning rate"), width=12),
        graph(
            "Gradient norm", "Before clipping, last step.", "short", Query(_latest("gradient_norm"), "norm"), width=12
        ),
    ]
    speed = [
        graph("Tokens", "Learnt from in a second.", "cps", Query(_rate("tokens_total"), "tokens/s")),
        graph(
            "Time of a step",
            "Half of the steps, and 95 % of them, take at most this long.",
            "s",
            Query(_quantile(0.5, "step_duration_seconds"), "p50"),
            Query(_quantile(0.95, "step_duration_seconds"), "p95"),
        ),
        graph(
            "Share of time spent on data",
            "Reading tokens, of the time of all steps.",
            "percentunit",
            Query(f"{_rate('data_wait_seconds_total')} / {_rate('step_duration_seconds_sum')}", "data"),
        ),
        graph(
            "Time by phase",
            "What the time of updates is spent on, as shares.",
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
            "Share of the devices' peak that goes into the model; empty for devices whose peak is not known.",
            "percentunit",
            Query(f"{_rate('model_flops_total')} / {_latest('peak_flops')}", "MFU"),
            quiet=True,
        ),
        graph(
            "Arithmetic",
            "Floating-point operations of the model in a second, over all devices.",
            "short",
            Query(_rate("model_flops_total"), "FLOP/s"),
        ),
        graph(
            "Goodput",
            "Share of the workers' time that went into updates that were kept, over the whole run.",
            "percentunit",
            Query(_latest("goodput_ratio"), "goodput"),
        ),
        graph(
            "Memory of the lead device",
            "The most since this process began; 0 without a GPU.",
            "bytes",
            Query(f"max by (state) (hatchery_train_device_memory_peak_bytes{{{RUN}}})", "{{state}}"),
        ),
        graph("Workers", "Processes that train together.", "short", Query(_latest("workers"), "workers")),
    ]
    safety = [
        graph(
            "Steps since the newest checkpoint",
            "These are lost when the pod is; they should stay below the interval.",
            "short",
            Query(f"{step} - {_latest('checkpoint_step')}", "since the checkpoint"),
            Query(_latest("checkpoint_interval_steps"), "interval"),
        ),
        number(
            "Age of the newest checkpoint",
            "Time since it was complete; empty until this process has written one.",
            "s",
            Query(f"time() - {_latest('checkpoint_last_success_timestamp_seconds')}"),
            tall=True,
            quiet=True,
        ),
        number(
            "Time since the last step",
            "More than a few times the time of a step means that the run stalls.",
            "s",
            Query(f"time() - {_latest('last_step_timestamp_seconds')}"),
            tall=True,
            bad_from=600,
        ),
        graph(
            "Time of a checkpoint",
            "95 % of them take at most this long.",
            "s",
            Query(_quantile(0.95, "checkpoint_duration_seconds"), "p95"),
            quiet=True,
        ),
        graph(
            "Attempts",
            "Jobs created, attempts that failed, and pods lost to eviction, preemption or drain.",
            "short",
            Query(f"hatchery_run_attempts{{{RESOURCE}}}", "attempts"),
            Query(f"hatchery_run_failures{{{RESOURCE}}}", "failures"),
            Query(f"hatchery_run_disruptions{{{RESOURCE}}}", "disruptions"),
        ),
        graph(
            "Interventions and failures",
            "Batches skipped, roll-backs, losses that were no number, checkpoints that could not be written or pushed, "
            "since this process began.",
            "short",
            Query(f"sum by (action) (hatchery_train_interventions_total{{{RUN}}})", "{{action}}"),
            Query(f"sum(hatchery_train_nonfinite_loss_total{{{RUN}}})", "not finite"),
            Query(f"sum(hatchery_train_checkpoint_failures_total{{{RUN}}})", "checkpoints not written"),
            Query(f'sum(hatchery_train_hub_pushes_total{{{RUN},result="failure"}})', "pushes failed"),
        ),
        graph(
            "Steps since the newest checkpoint on the Hub",
            "Without pushes it is the step itself.",
            "short",
            Query(f"{step} - {_latest('hub_step')}", "since the push"),
        ),
        graph(
            "Memory of the lead process",
            "Resident memory, without that of a device.",
            "bytes",
            Query(f"max(process_resident_memory_bytes{{{RUN}}})", "resident"),
        ),
        graph(
            "Processors of the lead process",
            "Used on average.",
            "short",
            Query(f"sum(rate(process_cpu_seconds_total{{{RUN}}}[$__rate_interval]))", "processors"),
        ),
    ]
    return page(
        "hatchery-run",
        "Hatchery / Run",
        "One PretrainRun: how it learns, how fast, and what would be lost.",
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
