"""Dashboard Operator: whether the operator keeps up, for those who run it."""

from grafana_foundation_sdk.models.dashboard import Dashboard
from manifests.monitoring.panels import Query, graph, number, page

BY_REPLICA = "{{instance}}"


def _pass_seconds(share: float) -> Query:
    buckets = "sum by (le, kind) (rate(hatchery_reconcile_duration_seconds_bucket[$__rate_interval]))"
    return Query(f"histogram_quantile({share}, {buckets})", f"{{{{kind}}}} p{share * 100:.0f}")


def control() -> Dashboard:
    """The dashboard."""
    now = [
        number("Leaders", "Exactly one replica acts.", "short", Query("sum(hatchery_leader)"), bad_below=1, bad_from=2),
        number("Version", "Of the operator.", "short", Query("hatchery_build_info", "{{version}}"), names=True),
        number("Resources", "Known to the operator.", "short", Query("sum(hatchery_resource_phase)")),
        number(
            "Longest wait",
            "Of a resource for a worker.",
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
            "CustomResourceDefinitions that are older than the operator.",
            "short",
            Query("sum(max by (kind) (hatchery_crd_outdated))"),
            bad_from=1,
        ),
    ]
    work = [
        graph(
            "Passes",
            "Looks at a resource, by how they ended.",
            "ops",
            Query("sum by (result) (rate(hatchery_reconcile_total[$__rate_interval]))", "{{result}}"),
            stacked=True,
        ),
        graph("Time of a pass", "95 % of the passes take at most this long.", "s", _pass_seconds(0.95), quiet=True),
        graph(
            "Share of failed passes",
            "By kind; the log names object and cause.",
            "percentunit",
            Query(
                'sum by (kind) (rate(hatchery_reconcile_total{result="error"}[$__rate_interval])) '
                "/ sum by (kind) (rate(hatchery_reconcile_total[$__rate_interval]))",
                "{{kind}}",
            ),
            quiet=True,
        ),
        graph("Queue", "Resources that wait for a worker.", "short", Query("hatchery_workqueue_depth", BY_REPLICA)),
        graph(
            "Longest wait", "Of a resource for a worker.", "s", Query("hatchery_workqueue_oldest_seconds", BY_REPLICA)
        ),
        graph(
            "Lag of the event loop",
            "How late the operator does what it wants to do now; it should stay below 0.1 s.",
            "s",
            Query("hatchery_event_loop_lag_seconds", BY_REPLICA),
        ),
    ]
    server = [
        graph(
            "Requests",
            "To the API server, by verb and answer; code 0 is no answer.",
            "reqps",
            Query("sum by (verb, code) (rate(hatchery_api_requests_total[$__rate_interval]))", "{{verb}} {{code}}"),
        ),
        graph(
            "Age of the watches",
            "Time since each watch told of a change, or a listing proved that there was none to tell.",
            "s",
            Query("max by (kind) (hatchery_watch_age_seconds)", "{{kind}}"),
        ),
        graph(
            "Changes that watches missed",
            "Found by a listing instead.",
            "short",
            Query("sum(increase(hatchery_watch_missed_total[$__rate_interval]))", "missed"),
        ),
    ]
    process = [
        graph(
            "Memory",
            "Resident memory of the operator.",
            "bytes",
            Query("process_resident_memory_bytes and on (instance) hatchery_build_info", BY_REPLICA),
            width=12,
        ),
        graph(
            "Processor",
            "Used on average, in processors.",
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
        "Whether the operator keeps up: queue, passes, requests, watches.",
        [],
        {"Now": now, "Work": work, "API server": server, "Process": process},
    )
