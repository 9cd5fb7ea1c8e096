"""The models, the CRDs, JSON, the pages and the code that reads the fields agree with each other."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel
from tests.support.jobs.guide import GUIDE, LEAST, examples
from tests.support.jobs.objective_sources import small_vocabulary

from hatchery_api.base import Record
from hatchery_api.conditions import ConditionType, Reason
from hatchery_api.contract import ExitCode, HubTarget, JobInput, Output
from hatchery_api.kinds import BY_KIND, KINDS, Kind
from hatchery_api.resources.corpus import FilterRule
from hatchery_api.resources.pretrain import FAMILIES, PretrainRunSpec
from hatchery_api.schema import custom_resource_definition, member_docs
from hatchery_jobs.pretrain.model import MODEL_FAMILIES, resolve_config
from hatchery_operator.codegen.generate import generated_files
from hatchery_operator.codegen.reference import walk
from hatchery_operator.stages import STAGES

ROOT = Path(__file__).resolve().parents[2]
CRD_LIMIT_BYTES = {kind.kind: 45_000 if kind.kind == "PretrainRun" else 30_000 for kind in KINDS}
"""Client-side apply keeps a copy of an object in an annotation, which may have 262,144 bytes: a CRD stays below an eighth
of it, that of a PretrainRun, which has by far the most fields, at about a sixth (decision 15)."""

EACH_KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)


def samples() -> Iterator[dict[str, Any]]:
    for path in sorted((ROOT / "manifests/samples").glob("*.yaml")):
        yield from (d for d in yaml.safe_load_all(path.read_text()) if d["apiVersion"].startswith("hatchery.dev/"))


def schema(kind: Kind) -> dict[str, Any]:
    [version] = custom_resource_definition(kind)["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]


def models(root: Any) -> Iterator[type[BaseModel]]:
    """The model and every model below it."""
    if isinstance(root, type) and issubclass(root, BaseModel):
        yield root
        for field in root.model_fields.values():
            yield from models(field.annotation)
    for part in get_args(root):
        yield from models(part)


def test_the_samples_cover_every_kind() -> None:
    assert {sample["kind"] for sample in samples()} == BY_KIND.keys()


@pytest.mark.parametrize("sample", list(samples()), ids=lambda s: f"{s['kind']}-{s['metadata']['name']}")
def test_a_spec_comes_out_of_the_pods_input_as_it_went_in(sample) -> None:
    model = BY_KIND[sample["kind"]].spec
    spec = model.model_validate(sample["spec"])
    job = JobInput[model](
        kind=sample["kind"],
        namespace="default",
        name=sample["metadata"]["name"],
        uid="0",
        stage="train",
        attempt=1,
        spec=spec,
        output=Output(root="claim://hatchery/default"),
        hub=HubTarget(endpoint="https://hub.example"),
    )
    read = JobInput[model].model_validate_json(json.dumps(job.wire()))
    assert read == job
    assert read.spec.wire() == spec.wire()


@EACH_KIND
def test_a_definition_stays_small(kind) -> None:
    assert len(json.dumps(custom_resource_definition(kind), separators=(",", ":"))) <= CRD_LIMIT_BYTES[kind.kind]


def parameters(family: str, size: str) -> int:
    """Parameters of a preset with the vocabulary and sequences of the guide's table."""
    objective = next(name for name, families in FAMILIES.items() if family in families)
    spec = {**LEAST, "objective": {"type": objective}, "model": {"architecture": family, "size": size}}
    vocabulary = replace(small_vocabulary(), size=32_768)
    return resolve_config(PretrainRunSpec.model_validate(spec), vocabulary).parameters


def rules(node: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every CEL rule of a schema, with the node that is its `self`."""
    for rule in node.get("x-kubernetes-validations", ()):
        yield rule["rule"], node
    below = [*node.get("properties", {}).values(), node.get("items"), node.get("additionalProperties")]
    for child in below:
        if isinstance(child, dict):
            yield from rules(child)


@EACH_KIND
def test_a_rule_names_only_fields_that_exist(kind) -> None:
    """The API server refuses a definition with any other, and with it all resources of the kind."""
    named, unknown = 0, []
    for rule, itself in rules(schema(kind)):
        for path, call in re.findall(r"\bself((?:\.[A-Za-z]\w*)+)(\(?)", rule):
            node, named = itself, named + 1
            for name in path[1:].split(".")[: -1 if call else None]:
                if node.get("type") == "object" and "properties" not in node:
                    break  # metadata, and what is passed through
                if name not in node.get("properties", {}):
                    unknown.append(f"{name} in {rule}")
                    break
                node = node["properties"][name]
    assert unknown == []
    assert named > 10


@pytest.mark.parametrize("spec", examples(), ids=str)
def test_an_example_of_the_guide_is_a_spec(spec) -> None:
    wire = PretrainRunSpec.model_validate(spec).wire()
    assert wire.keys() >= spec.keys()


def test_the_guide_has_the_sizes_of_all_presets() -> None:
    """The table of the guide against the shapes that models are built with."""
    rows = {
        cells[1].strip(" `"): cells[2:-1]
        for line in GUIDE.read_text().splitlines()
        if len(cells := line.split("|")) == 8
    }
    for name, family in MODEL_FAMILIES.items():
        said = [float(cell.strip().rstrip("M").replace(",", "")) for cell in rows[name]]
        assert said == [round(parameters(name, size) / 1e6, 1) for size in family.presets], name


@EACH_KIND
def test_kubectl_explains_every_field(kind) -> None:
    fields = [
        (part, path, node) for part in ("spec", "status") for path, node in walk(schema(kind)["properties"][part])
    ]
    assert len(fields) > 50
    assert [
        f"{part}.{path}" for part, path, node in fields if not node.get("description", "").endswith((".", "`"))
    ] == []


@EACH_KIND
def test_every_list_text_and_map_a_user_writes_is_bounded(kind) -> None:
    """Bounds keep objects small, and the cost of CEL rules can only be estimated with them."""
    limits = {"array": "maxItems", "string": "maxLength"}
    unbounded = []
    for path, node in walk(schema(kind)["properties"]["spec"]):
        limit = "maxProperties" if "additionalProperties" in node else limits.get(node.get("type", ""))
        if limit and limit not in node and "enum" not in node:
            unbounded.append(path)
    assert unbounded == []


@EACH_KIND
def test_a_stranger_in_a_spec_is_refused_and_in_a_record_ignored(kind) -> None:
    for model in models(kind.spec):
        assert model.model_config["extra"] == "forbid", model
    for model in models(kind.status):
        assert issubclass(model, Record), model
        assert model.model_config["extra"] == "ignore", model


@EACH_KIND
def test_what_a_run_reports_fits_into_its_status(kind) -> None:
    assert kind.result.model_fields.keys() <= kind.status.model_fields.keys()


@EACH_KIND
def test_every_stage_has_code_on_both_sides(kind) -> None:
    assert tuple(stage.name for stage in STAGES[kind.kind]) == kind.stages
    for job in kind.jobs:
        assert find_spec(f"hatchery_jobs.{kind.package}.{job.module}"), job.name


@pytest.mark.parametrize("enum", [Reason, ConditionType, ExitCode], ids=lambda enum: enum.__name__)
def test_every_reason_is_a_sentence_on_the_page(enum) -> None:
    page = (ROOT / "docs/reference/conditions.md").read_text()
    docs = member_docs(enum)
    for member in enum:
        assert docs[member.name].endswith("."), member
        assert f"| `{member.value}` | {docs[member.name]} |" in page


def test_generated_files_are_fresh() -> None:
    stale = [name for name, text in generated_files().items() if (ROOT / name).read_text() != text]
    assert stale == [], "run: make generate"


def test_no_generated_file_is_left_behind() -> None:
    """A kind or role that is gone must take its files with it."""
    folders = [
        "manifests/crds",
        "manifests/rbac",
        "charts/hatchery/templates/crds",
        "charts/hatchery/templates/rbac",
        "docs/reference",
    ]
    found = {str(path.relative_to(ROOT)) for folder in folders for path in (ROOT / folder).iterdir()}
    assert found <= generated_files().keys()


def modules_of(package: str) -> list[str]:
    """Every module of a package below operator/, with its `__main__`."""
    files = (ROOT / "operator" / package).rglob("*.py")
    parts = [path.relative_to(ROOT / "operator").with_suffix("").parts for path in files]
    return sorted(".".join(part for part in names if part != "__init__") for names in parts)


def loaded_by(modules: list[str], wanted: list[str]) -> str:
    """Which of some modules are loaded, in a fresh process, by importing others."""
    code = f"import sys\nfor name in {modules!r}: __import__(name)\nsys.exit(str([m for m in {wanted!r} if m in sys.modules] or ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stderr.strip()


def test_the_operator_imports_no_deep_learning_library() -> None:
    modules = modules_of("hatchery_operator")
    assert {"hatchery_operator.__main__", "hatchery_operator.planning.planner"} < set(modules)
    heavy = ["torch", "transformers", "datasets", "tokenizers", "numpy", "pyarrow"]
    assert loaded_by(modules, heavy) == ""


def test_code_generation_is_no_part_of_the_running_operator_and_command_line() -> None:
    codegen = "hatchery_operator.codegen"
    modules = [*modules_of("hatchery_api"), *modules_of("hatchery_operator"), *modules_of("hatchery_cli")]
    assert loaded_by([name for name in modules if not name.startswith(codegen)], [codegen]) == ""


@pytest.mark.parametrize("folder", ["operator", "jobs"])
def test_the_source_folders_are_no_packages(folder) -> None:
    """A package named operator would hide the standard library's."""
    assert not (ROOT / folder / "__init__.py").exists()


UNREAD = {
    "key": "tolerations are passed on whole",
    "operator": "tolerations are passed on whole",
    "value": "tolerations are passed on whole",
    "effect": "tolerations are passed on whole",
    "toleration_seconds": "tolerations are passed on whole",
    **dict.fromkeys(
        (
            *("value_from", "secret_key_ref", "config_map_key_ref", "config_map", "secret", "secret_name", "empty_dir"),
            *("medium", "size_limit", "persistent_volume_claim", "resource_claim_name", "resource_claim_template_name"),
        ),
        "overrides are passed on whole",
    ),
}
"""Fields nobody reads by name, and why that is right."""


def attributes_read() -> set[str]:
    names: set[str] = set()
    for folder in ("operator/hatchery_operator", "jobs/hatchery_jobs"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case (
                        ast.Attribute(attr=name)
                        | ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str(name)), *_])
                    ):
                        names.add(name)
    return names


def spec_fields() -> set[str]:
    every = {model for kind in KINDS for model in models(kind.spec)}
    # the filters find the one rule that is set by going through the fields, and check it by its type
    return {name for model in every - {FilterRule} for name in model.model_fields}


def test_every_spec_field_is_read_somewhere() -> None:
    """A field that nothing reads is a promise the product does not keep."""
    unread = spec_fields() - attributes_read() - UNREAD.keys()
    assert sorted(unread) == []


def test_fields_that_need_no_reader_exist() -> None:
    assert UNREAD.keys() <= spec_fields()
