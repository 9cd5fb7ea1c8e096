"""Dashboard Operator: queue, reconciles, API requests and watches, for cluster administrators."""

from grafana_foundation_sdk.models.dashboard import Dashboard
from manifests.monitoring.panels import Query, graph, number, page

BY_REPLICA = "{{instance}}"


def _reconcile_seconds(share: float) -> Query:
    buckets = "sum by (le, kind) (rate(hatchery_reconcile_duration_seconds_bucket[$__rate_interval]))"
    return Query(f"histogram_quantile({share}, {buckets})", f"{{{{kind}}}} p{share * 100:.0f}")


def control() -> Dashboard:
    """Builds the dashboard."""
    now = [
        number(
            "Leaders", "Exactly one replica leads.", "short", Query("sum(hatchery_leader)"), bad_below=1, bad_from=2
        ),
        number("Version", "Operator version.", "short", Query("hatchery_build_info", "{{version}}"), names=True),
        number("Resources", "Resources in the operator's cache.", "short", Query("sum(hatchery_resource_phase)")),
        number(
            "Longest wait",
            "Time a resource has waited for a worker.",
            "s",
            Query("max(hatchery_workqueue_oldest_seconds)"),
            bad_from=60,
        ),
        number(
            "Oldest watch",
            "Longest time since a watch was known to be alive.",
            "s",
            Query("max(hatchery_watch_age_seconds)"),
            bad_from=900,
        ),
        number(
            "Outdated definitions",
            "CustomResourceDefinitions that lack fields of this operator version.",
            "short",
            Query("sum(max by (kind) (hatchery_crd_outdated))"),
            bad_from=1,
        ),
    ]
    work = [
        graph(
            "Reconciles",
            "Reconciles by outcome.",
            "ops",
            Query("sum by (result) (rate(hatchery_reconcile_total[$__rate_interval]))", "{{result}}"),
            stacked=True,
        ),
        graph("Reconcile duration", "95th percentile.", "s", _reconcile_seconds(0.95), quiet=True),
        graph(
            "Failed reconciles",
            "Share by kind; the log names object and cause.",
            "percentunit",
            Query(
                'sum by (kind) (rate(hatchery_reconcile_total{result="error"}[$__rate_interval])) '
                "/ sum by (kind) (rate(hatchery_reconcile_total[$__rate_interval]))",
                "{{kind}}",
            ),
            quiet=True,
        ),
        graph("Queue", "Resources waiting for a worker.", "short", Query("hatchery_workqueue_depth", BY_REPLICA)),
        graph(
            "Longest wait",
            "Time a resource has waited for a worker.",
            "s",
            Query("hatchery_workqueue_oldest_seconds", BY_REPLICA),
        ),
        graph(
            "Event loop lag",
            "Delay of scheduled work; should stay below 0.1 s.",
            "s",
            Query("hatchery_event_loop_lag_seconds", BY_REPLICA),
        ),
    ]
    server = [
        graph(
            "Requests",
            "API server requests by verb and status code; code 0 is no response.",
            "reqps",
            Query("sum by (verb, code) (rate(hatchery_api_requests_total[$__rate_interval]))", "{{verb}} {{code}}"),
        ),
        graph(
            "Watch age",
            "Time since a watch delivered a change or a resync proved that it missed none.",
            "s",
            Query("max by (kind) (hatchery_watch_age_seconds)", "{{kind}}"),
        ),
        graph(
            "Changes missed by watches",
            "Found by a resync instead.",
            "short",
            Query("sum(increase(hatchery_watch_missed_total[$__rate_interval]))", "missed"),
        ),
    ]
    process = [
        graph(
            "Memory",
            "Resident memory of each replica.",
            "bytes",
            Query("process_resident_memory_bytes and on (instance) hatchery_build_info", BY_REPLICA),
            width=12,
        ),
        graph(
            "CPU",
            "Average CPU usage in cores.",
            "short",
            Query(
                "rate(process_cpu_seconds_total[$__rate_interval]) and on (instance) hatchery_build_info", BY_REPLICA
            ),
            width=12,
        ),
    ]
    return page(
        "hatchery-operator",
        "Hatchery / Operator",
        "Queue, reconciles, API requests and watches of the operator.",
        [],
        {"Now": now, "Work": work, "API server": server, "Process": process},
    )
