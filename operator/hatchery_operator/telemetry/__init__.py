"""What the operator says about itself: metrics, liveness and readiness, structured logs.

Imported by the controller and `__main__`; imports only `domain`.
"""

from hatchery_operator.telemetry.health import Pulse, beat, health_app, metrics_app, serve
from hatchery_operator.telemetry.logs import add_log_context, configure_logs, set_log_context
from hatchery_operator.telemetry.metrics import Metrics, ReconcileResult

__all__ = [
    "Metrics",
    "Pulse",
    "ReconcileResult",
    "add_log_context",
    "beat",
    "configure_logs",
    "health_app",
    "metrics_app",
    "serve",
    "set_log_context",
]
