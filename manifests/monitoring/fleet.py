"""Dashboard Fleet: what all resources do, for those who run the platform."""

from grafana_foundation_sdk.models.dashboard import Dashboard
from manifests.monitoring.panels import Query, graph, label_variable, number, page, rows

OF = 'namespace=~"$namespace",kind=~"$kind"'
WAITING = 'type="Succeeded",status="Unknown",reason!="Running"'
FAILED = 'type="Succeeded",status="False"'
SAME = "on (kind, namespace, name)"


def _in_phase(phases: str) -> Query:
    return Query(f'sum(hatchery_resource_phase{{{OF},phase=~"{phases}"}})')


def fleet() -> Dashboard:
    """The dashboard."""
    now = [
        number("Running", "Resources whose pods work.", "short", _in_phase("Running")),
        number("Waiting", "Resources that wait for another one.", "short", _in_phase("Waiting")),
        number("Pending", "Resources whose pods do not run yet.", "short", _in_phase("Pending|Retrying|Resizing")),
        number("Suspended", "Resources that a user holds.", "short", _in_phase("Suspended")),
        number("Succeeded", "Resources whose artifact is ready.", "short", _in_phase("Succeeded")),
        number("Failed", "Resources that will not be tried again.", "short", _in_phase("Failed"), bad_from=1),
    ]
    history = [
        graph(
            "Resources by phase",
            "What the resources did.",
            "short",
            Query(f"sum by (phase) (hatchery_resource_phase{{{OF}}})", "{{phase}}"),
            stacked=True,
            width=12,
        ),
        graph(
            "Why resources do not run",
            "Resources that have not ended and do not run, by the reason they give.",
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
            "Resources that have failed and still exist; the reference of conditions explains each reason.",
            "short",
            Query(f"sum by (reason) (hatchery_resource_condition{{{OF},{FAILED}}})", "{{reason}}"),
            stacked=True,
            width=12,
            quiet=True,
        ),
        graph(
            "Failed attempts and lost pods",
            "Attempts that failed, which count against the retries, and pods lost to eviction, preemption or drain.",
            "short",
            Query(f"sum(hatchery_run_failures{{{OF}}})", "failed attempts"),
            Query(f"sum(hatchery_run_disruptions{{{OF}}})", "lost pods"),
            width=12,
        ),
    ]
    devices = f"hatchery_run_devices{{{OF}}}"
    use = [
        number(
            "Accelerators in use", "Held by training stages that run.", "short", Query(f"sum({devices})"), tall=True
        ),
        number(
            "Accelerator hours",
            "Held by training stages over the time shown.",
            "h",
            Query(f"sum(avg_over_time(sum by (namespace) ({devices})[$__range:])) * $__range_s / 3600"),
            tall=True,
        ),
        graph(
            "Accelerators by namespace",
            "Held by training stages that run.",
            "short",
            Query(f"sum by (namespace) ({devices})", "{{namespace}}"),
            stacked=True,
            width=16,
        ),
    ]
    lists = [
        rows(
            "At work",
            "Resources with a stage in progress, and how far it is.",
            "percentunit",
            Query(f"hatchery_run_progress_ratio{{{OF}}} * {SAME} group_left (stage) hatchery_run_current_stage"),
            {"namespace": "Namespace", "kind": "Kind", "name": "Name", "stage": "Stage", "Value": "Progress"},
            quiet=True,
        ),
        rows(
            "Failed resources",
            "They will not be tried again; the reference of conditions explains each reason.",
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
        "What all resources do: phases, failures, accelerators.",
        [
            label_variable("namespace", "Namespace", "hatchery_resource_phase, namespace", several=True),
            label_variable("kind", "Kind", "hatchery_resource_phase, kind", several=True),
        ],
        {"Now": now, "History": history, "Accelerators": use, "Resources": lists},
    )
