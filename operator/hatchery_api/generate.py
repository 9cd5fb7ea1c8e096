"""Writes the generated files, or checks that they are fresh: `python -m hatchery_api.generate [--check]`."""

import re
import sys
from pathlib import Path

import yaml

from hatchery_api.crd import custom_resource_definition
from hatchery_api.kinds import KINDS

_BANNER = "# Generated from operator/hatchery_api by `make generate`; edit the models instead.\n"
_CHART_HEAD = "{{- if .Values.crds.enabled }}\n"
_CHART_TAIL = "{{- end }}\n"


class _Dumper(yaml.SafeDumper):
    """Quotes a lone `y` or `n` too: Kubernetes and Helm read YAML 1.1 to the letter, where these are booleans."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^[yYnN]$"), list("yYnN"))


def generated_files() -> dict[str, str]:
    """Content of every file generated from the API models, by path from the repository's root."""
    files: dict[str, str] = {}
    for kind in KINDS:
        crd = custom_resource_definition(kind)
        files[f"manifests/crds/{kind.plural}.yaml"] = _BANNER + dump_yaml(crd)
        files[f"charts/hatchery/templates/crds/{kind.plural}.yaml"] = _chart_crd(crd)
    return files


def dump_yaml(data: object) -> str:
    """YAML in the order it was built, with long lines kept whole."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=4096, allow_unicode=True)


def _chart_crd(crd: dict[str, object]) -> str:
    text = dump_yaml(crd).replace("{{", '{{ "{{" }}')
    keep = "  annotations:\n    {{- if .Values.crds.keep }}\n    helm.sh/resource-policy: keep\n    {{- end }}\n"
    labels = '  labels:\n    {{- include "hatchery.labels" . | nindent 4 }}\n'
    head, tail = text.split("spec:\n", 1)
    return _BANNER + _CHART_HEAD + head + keep + labels + "spec:\n" + tail + _CHART_TAIL


def write_or_check(files: dict[str, str], *, check: bool) -> list[str]:
    """Writes the files whose content differs, or only names them; paths are from the working directory."""
    stale = [name for name, text in files.items() if not Path(name).is_file() or Path(name).read_text() != text]
    if not check:
        for name in stale:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text(files[name])
    return stale


def main() -> int:
    """Entry point; exit status 1 when `--check` finds a difference."""
    check = "--check" in sys.argv[1:]
    stale = write_or_check(generated_files(), check=check)
    for name in stale:
        print(f"{'stale' if check else 'wrote'}: {name}", file=sys.stderr)  # noqa: T201 - a command line
    if check and stale:
        print("run: make generate", file=sys.stderr)  # noqa: T201 - a command line
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
