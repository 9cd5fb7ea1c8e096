"""A dataset of the Hub as a source of documents, streamed at one commit."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hatchery_api.conditions import Reason
from hatchery_api.resources.corpus import HubDataset
from hatchery_jobs.hub import hub_errors, hub_token
from hatchery_jobs.readers.documents import Document, Fault
from hatchery_jobs.runtime import DataError, RetryableError, SpecError


@dataclass(frozen=True)
class HubSource:
    """One split of a dataset at one commit."""

    field: str
    """Path of the source in the spec, for messages."""
    name: str
    spec: HubDataset
    commit: str
    endpoint: str

    @property
    def fingerprint(self) -> str:
        """The commit."""
        return self.commit

    @property
    def files(self) -> int:
        """Unknown, hence 0: a dataset is a stream of rows."""
        return 0

    @property
    def description(self) -> str:
        """Repository, configuration, split and commit."""
        config = f", configuration `{self.spec.config}`" if self.spec.config else ""
        return f"`{self.spec.dataset}`{config}, split `{self.spec.split}`, at `{self.commit}`"

    @property
    def _place(self) -> str:
        return f"hf://datasets/{self.spec.dataset}@{self.commit}"

    def items(self) -> Iterator[tuple[int, Document | Fault]]:
        """The rows of the split."""
        with _endpoint(self.endpoint):
            for number, row in enumerate(self._rows(), 1):
                yield 0, self._item(number, row)

    def _item(self, number: int, row: dict[str, Any]) -> Document | Fault:
        value = row.get(self.spec.text_field)
        if not isinstance(value, str):
            problem = f"field {self.spec.text_field!r} is {type(value).__name__}, not text"
            return Fault(self._place, number, None, problem, "set textField to a text column")
        return Document(self.name, f"{self._place}/{self.spec.split}", number, value)

    def _rows(self) -> Iterator[dict[str, Any]]:
        what = f"{self.field}.hub: {self.spec.dataset} at {self.commit[:12]} on {self.endpoint}"
        try:
            with hub_errors(what):
                data = self._stream()
                columns = data.column_names
                if columns is not None and self.spec.text_field not in columns:
                    raise SpecError(
                        Reason.INVALID_SPEC,
                        f"{what}: no column {self.spec.text_field!r}; the dataset has {', '.join(columns)}; "
                        "set textField",
                    )
                yield from data
        except OSError as error:
            raise RetryableError(Reason.HUB_UNAVAILABLE, f"{what}: {error}; retrying") from error

    def _stream(self) -> Any:
        import datasets

        try:
            return datasets.load_dataset(
                self.spec.dataset,
                self.spec.config,
                split=self.spec.split,
                revision=self.commit,
                token=hub_token(),
                streaming=True,
            )
        except (ValueError, datasets.exceptions.DatasetNotFoundError) as error:
            raise DataError(
                Reason.SOURCE_NOT_FOUND,
                f"{self.field}.hub: {self.spec.dataset} cannot be loaded: {error}; check config and split",
            ) from error


def find_dataset(field: str, name: str, spec: HubDataset, endpoint: str) -> HubSource:
    """Resolves the revision of a dataset to a commit.

    Raises:
        SpecError: the repository or revision does not exist, or the token may not read it.
        RetryableError: the Hub cannot be reached.
    """
    from huggingface_hub import HfApi

    endpoint = endpoint.rstrip("/")
    with hub_errors(f"{field}.hub: {spec.dataset} at {spec.revision} on {endpoint}"):
        info = HfApi(endpoint=endpoint, token=hub_token()).dataset_info(spec.dataset, revision=spec.revision)
    return HubSource(field, name, spec, str(info.sha), endpoint)


@contextmanager
def _endpoint(url: str) -> Iterator[None]:
    """Points the library at a Hub: it reads its environment once, on import, and takes no argument for it."""
    import datasets

    before = datasets.config.HF_ENDPOINT
    datasets.config.HF_ENDPOINT = url
    try:
        yield
    finally:
        datasets.config.HF_ENDPOINT = before
