"""The numbers of results that columns show."""

import pytest

from hatchery_api.kinds import KINDS
from hatchery_api.resources.evaluate import EvalResult
from hatchery_api.resources.pretrain import PretrainResult


def evaluated(*values: str) -> EvalResult:
    return EvalResult.model_validate(
        {"results": [{"task": "ppl", "metric": "perplexity", "value": value, "n": 9} for value in values]}
    )


@pytest.mark.parametrize(
    ("result", "rounded"),
    [
        (PretrainResult(perplexity=90.20550417490631), {"perplexity": "90.21"}),
        (PretrainResult(), {}),
        (evaluated("24.90550417490631", "1"), {"value": "24.91"}),
        (evaluated("inf"), {"value": "inf"}),
        (evaluated("no number"), {}),
        (evaluated(), {}),
    ],
)
def test_a_result_rounds_the_numbers_of_its_columns(result, rounded) -> None:
    assert result.rounded() == rounded


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_no_column_shows_a_number_that_is_not_rounded(kind) -> None:
    assert {column.type for column in kind.columns} <= {"string", "integer", "date"}
