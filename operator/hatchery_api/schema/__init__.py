"""From models to CustomResourceDefinitions, reference text and generated files.

Imported by the operator (check of the served CRDs, code generation), the CLI (`member_docs`), the generators under
manifests/, and tests; pods never need it.
"""

from hatchery_api.schema.crd import NAME_LIMIT, custom_resource_definition, structural
from hatchery_api.schema.docs import member_docs
from hatchery_api.schema.files import BANNER, crd_files, dump_yaml, run_generator

__all__ = [
    "BANNER",
    "NAME_LIMIT",
    "crd_files",
    "custom_resource_definition",
    "dump_yaml",
    "member_docs",
    "run_generator",
    "structural",
]
