"""Writes the CRDs, or checks that they are fresh: `python -m hatchery_api.schema.generate [--check]`."""

import sys

from hatchery_api.schema.files import crd_files, run_generator

if __name__ == "__main__":
    sys.exit(run_generator(crd_files()))
