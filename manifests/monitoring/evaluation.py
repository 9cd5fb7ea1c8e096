"""Dashboard Evaluation: results of EvalRuns side by side, for those who compare models."""

from grafana_foundation_sdk.models.dashboard import Dashboard
from manifests.monitoring.panels import Query, bars, graph, label_variable, number, page, rows

OF = 'namespace=~"$namespace",name=~"$name"'
RESULTS = f'hatchery_eval_metric{{{OF},task=~"$task",metric=~"$metric"}}'


def evaluation() -> Dashboard:
    """Builds the dashboard."""
    phase = f'hatchery_resource_phase{{kind="EvalRun",{OF}}}'
    now = [
        number(
            "Running", "EvalRuns with running pods.", "short", Query(f'sum({phase[:-1]},phase="Running"}})'), width=8
        ),
        number("Done", "EvalRuns with results.", "short", Query(f'sum({phase[:-1]},phase="Succeeded"}})'), width=8),
        number(
            "Failed",
            "EvalRuns that will not be retried.",
            "short",
            Query(f'sum({phase[:-1]},phase="Failed"}})'),
            bad_from=1,
            width=8,
        ),
        rows(
            "In progress",
            "Running EvalRuns and their progress.",
            "percentunit",
            Query(
                f'hatchery_run_progress_ratio{{kind="EvalRun",{OF}}} and on (namespace, name) '
                f'(hatchery_resource_phase{{kind="EvalRun",{OF},phase="Running"}} == 1)'
            ),
            {"namespace": "Namespace", "name": "Name", "Value": "Progress"},
            width=24,
            quiet=True,
        ),
    ]
    results = [
        bars(
            "Results",
            "One bar per EvalRun, task and metric.",
            "short",
            Query(RESULTS, "{{name}}: {{task}} {{metric}}"),
        ),
        rows(
            "Results as a table",
            "The same values as numbers.",
            "short",
            Query(RESULTS),
            {"namespace": "Namespace", "name": "Name", "task": "Task", "metric": "Metric", "Value": "Value"},
        ),
        graph(
            "Perplexity of models",
            "Validation perplexity of finished PretrainRuns; lower is better.",
            "short",
            Query('hatchery_run_perplexity{kind="PretrainRun",namespace=~"$namespace"}', "{{name}}"),
            width=12,
        ),
        graph(
            "Results over time",
            "A step marks a new EvalRun of the same name.",
            "short",
            Query(RESULTS, "{{name}}: {{task}} {{metric}}"),
            width=12,
        ),
    ]
    return page(
        "hatchery-evaluation",
        "Hatchery / Evaluation",
        "Results of EvalRuns side by side.",
        [
            label_variable(
                "namespace", "Namespace", 'hatchery_resource_phase{kind="EvalRun"}, namespace', several=True
            ),
            label_variable(
                "name", "EvalRun", 'hatchery_resource_phase{kind="EvalRun",namespace=~"$namespace"}, name', several=True
            ),
            label_variable("task", "Task", f"hatchery_eval_metric{{{OF}}}, task", several=True),
            label_variable("metric", "Metric", f"hatchery_eval_metric{{{OF}}}, metric", several=True),
        ],
        {"Now": now, "Results": results},
    )
