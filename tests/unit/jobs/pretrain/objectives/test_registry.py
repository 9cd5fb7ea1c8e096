"""Objectives and families of the API, and what the jobs know of each."""

from pkgutil import resolve_name
from typing import get_args

import pytest

from hatchery_api.resources.pretrain import FAMILIES, Architecture, ObjectiveSpec
from hatchery_jobs.pretrain.model import MODEL_FAMILIES
from hatchery_jobs.pretrain.objectives import OBJECTIVES


def test_every_objective_of_the_api_is_registered_and_has_families():
    names = set(get_args(ObjectiveSpec.model_fields["type"].annotation))
    assert names == set(OBJECTIVES) == set(FAMILIES)


def test_every_family_of_the_api_is_registered_and_suits_an_objective():
    suited = {family for families in FAMILIES.values() for family in families}
    assert set(get_args(Architecture)) == set(MODEL_FAMILIES) == suited


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_has_an_implementation(name):
    assert callable(resolve_name(OBJECTIVES[name].implementation))
