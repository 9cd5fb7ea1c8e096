"""Dashboard Fleet: phases, failures and accelerators of all resources, for platform engineers."""

from grafana_foundation_sdk.models.dashboard import Dashboard
from manifests.monitoring.panels import Query, graph, label_variable, number, page, rows

OF = 'namespace=~"$namespace",kind=~"$kind"'
WAITING = 'type="Succeeded",status="Unknown",reason!="Running"'
FAILED = 'type="Succeeded",status="False"'
SAME = "on (kind, namespace, name)"


def _in_phase(phases: str) -> Query:
    return Query(f'sum(hatchery_resource_phase{{{OF},phase=~"{phases}"}})')


def fleet() -> Dashboard:
    """Builds the dashboard."""
    now = [
        number("Running", "Resources with running pods.", "short", _in_phase("Running")),
        number("Waiting", "Resources waiting for another resource.", "short", _in_phase("Waiting")),
        number("Pending", "Resources whose pods are not running yet.", "short", _in_phase("Pending|Retrying|Resizing")),
        number("Suspended", "Resources suspended by a user.", "short", _in_phase("Suspended")),
        number("Succeeded", "Resources with a finished artifact.", "short", _in_phase("Succeeded")),
        number("Failed", "Resources that will not be retried.", "short", _in_phase("Failed"), bad_from=1),
    ]
    history = [
        graph(
            "Resources by phase",
            "Number of resources in each phase.",
            "short",
            Query(f"sum by (phase) (hatchery_resource_phase{{{OF}}})", "{{phase}}"),
            stacked=True,
            width=12,
        ),
        graph(
            "Reasons for not running",
            "Unfinished resources that are not running, by reason.",
            "short",
            Query(
                f"sum by (reason) (hatchery_resource_condition{{{OF},{WAITING}}})",
                "{{reason}}",
            ),
            stacked=True,
            width=12,
            quiet=True,
        ),
        graph(
            "Failures by reason",
            "Failed resources that still exist; the conditions reference explains each reason.",
            "short",
            Query(f"sum by (reason) (hatchery_resource_condition{{{OF},{FAILED}}})", "{{reason}}"),
            stacked=True,
            width=12,
            quiet=True,
        ),
        graph(
            "Failed attempts and lost pods",
            "Failed attempts, which count against the retries, and pods lost to eviction, preemption or drain.",
            "short",
            Query(f"sum(hatchery_run_failures{{{OF}}})", "failed attempts"),
            Query(f"sum(hatchery_run_disruptions{{{OF}}})", "lost pods"),
            width=12,
        ),
    ]
    devices = f"hatchery_run_devices{{{OF}}}"
    use = [
        number("Accelerators in use", "Held by running training stages.", "short", Query(f"sum({devices})"), tall=True),
        number(
            "Accelerator hours",
            "Held by training stages over the selected time range.",
            "h",
            Query(f"sum(avg_over_time(sum by (namespace) ({devices})[$__range:])) * $__range_s / 3600"),
            tall=True,
        ),
        graph(
            "Accelerators by namespace",
            "Held by running training stages.",
            "short",
            Query(f"sum by (namespace) ({devices})", "{{namespace}}"),
            stacked=True,
            width=16,
        ),
    ]
    lists = [
        rows(
            "In progress",
            "Resources with a running stage, and its progress.",
            "percentunit",
            Query(f"hatchery_run_progress_ratio{{{OF}}} * {SAME} group_left (stage) hatchery_run_current_stage"),
            {"namespace": "Namespace", "kind": "Kind", "name": "Name", "stage": "Stage", "Value": "Progress"},
            quiet=True,
        ),
        rows(
            "Failed resources",
            "They will not be retried; the conditions reference explains each reason.",
            "dateTimeAsIso",
            Query(
                f"1000 * hatchery_run_completion_timestamp_seconds{{{OF}}} * {SAME} group_left (reason) "
                f"hatchery_resource_condition{{{FAILED}}}"
            ),
            {"namespace": "Namespace", "kind": "Kind", "name": "Name", "reason": "Reason", "Value": "When"},
            quiet=True,
        ),
    ]
    return page(
        "hatchery-fleet",
        "Hatchery / Fleet",
        "Phases, failures and accelerators of all resources.",
        [
            label_variable("namespace", "Namespace", "hatchery_resource_phase, namespace", several=True),
            label_variable("kind", "Kind", "hatchery_resource_phase, kind", several=True),
        ],
        {"Now": now, "History": history, "Accelerators": use, "Resources": lists},
    )
