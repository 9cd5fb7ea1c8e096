"""Writes every generated file, or verifies with `--check` that each is up to date."""

import sys
from typing import Any

from hatchery_api import __version__
from hatchery_api.kinds import KINDS
from hatchery_api.schema import BANNER, crd_files, dump_yaml, run_generator
from hatchery_operator.codegen import rbac
from hatchery_operator.codegen.chart import chart_files
from hatchery_operator.codegen.reference import reference_files

_NAMESPACE = "hatchery-system"
_KUSTOMIZATION = """# The operator for all namespaces: kubectl apply --server-side -k manifests
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
{crds}
  - rbac/operator.yaml
  - rbac/users.yaml
  - operator/namespace.yaml
  - operator/serviceaccount.yaml
  - operator/service.yaml
  - operator/deployment.yaml
  - operator/poddisruptionbudget.yaml
# The name ends in a hash of the content, so that a change of the settings restarts the operator.
configMapGenerator:
  - name: hatchery-settings
    namespace: {namespace}
    files:
      - settings.yaml=operator/settings.yaml
images:
  - name: hatchery/operator
    newTag: {version}
"""


def generated_files() -> dict[str, str]:
    """Content of every generated file, by path from the repository root."""
    roles = rbac.operator_roles(_NAMESPACE)
    return {
        **crd_files(),
        "manifests/rbac/operator.yaml": _documents(
            *roles, *(rbac.binding(role, rbac.OPERATOR, _NAMESPACE) for role in roles)
        ),
        "manifests/rbac/users.yaml": _documents(*rbac.user_roles()),
        "manifests/kustomization.yaml": _kustomization(),
        **chart_files(),
        **reference_files(),
    }


def _documents(*manifests: dict[str, Any]) -> str:
    return BANNER + "---\n".join(dump_yaml(manifest) for manifest in manifests)


def _kustomization() -> str:
    crds = "\n".join(f"  - crds/{kind.plural}.yaml" for kind in KINDS)
    return BANNER + _KUSTOMIZATION.format(crds=crds, namespace=_NAMESPACE, version=__version__)


if __name__ == "__main__":
    sys.exit(run_generator(generated_files()))
