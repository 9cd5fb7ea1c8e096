"""The API server's audit log: every request of a ServiceAccount, who made it and whether it was allowed."""

import json
from pathlib import Path

from tests.cluster.files import write_if_changed

POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}
"""Without bodies, and without Kubernetes' own controllers, which would be most of it."""

LARGEST_MEGABYTES = 200
"""Size at which the log is begun anew; one older log is kept."""


def audit_log(state: Path) -> Path:
    """Return where the log is: one event a line."""
    return state / "audit.log"


def audit_arguments(state: Path) -> list[str]:
    """Return the arguments of kube-apiserver that keep the log, their policy file written."""
    policy = state / "audit-policy.json"
    write_if_changed(policy, json.dumps(POLICY))
    return [
        f"--audit-policy-file={policy}",
        f"--audit-log-path={audit_log(state)}",
        f"--audit-log-maxsize={LARGEST_MEGABYTES}",
        "--audit-log-maxbackup=1",
    ]
