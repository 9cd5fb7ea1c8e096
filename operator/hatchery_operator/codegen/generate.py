"""Writes every generated file, or verifies with `--check` that each is up to date."""

import sys
from typing import Any

from hatchery_api.schema import BANNER, crd_files, dump_yaml, run_generator
from hatchery_operator.codegen import rbac
from hatchery_operator.codegen.chart import chart_files
from hatchery_operator.codegen.reference import reference_files

_NAMESPACE = "hatchery-system"


def generated_files() -> dict[str, str]:
    """Content of every generated file, by path from the repository root."""
    roles = rbac.operator_roles(_NAMESPACE)
    return {
        **crd_files(),
        "manifests/rbac/operator.yaml": _documents(
            *roles, *(rbac.binding(role, rbac.OPERATOR, _NAMESPACE) for role in roles)
        ),
        "manifests/rbac/users.yaml": _documents(*rbac.user_roles()),
        **chart_files(),
        **reference_files(),
    }


def _documents(*manifests: dict[str, Any]) -> str:
    return BANNER + "---\n".join(dump_yaml(manifest) for manifest in manifests)


if __name__ == "__main__":
    sys.exit(run_generator(generated_files()))
