"""Opens the feed that a spec asks for: a store, or text while training."""

from hatchery_api.resources.pretrain.spec import PretrainRunSpec
from hatchery_jobs.pretrain.data.feed import StoreFeed, store_feed
from hatchery_jobs.pretrain.data.row_lengths import row_tokens
from hatchery_jobs.pretrain.data.stream_feed import StreamFeed, stream_feed
from hatchery_jobs.pretrain.data.token_store import TokenStore
from hatchery_jobs.pretrain.data.vocabulary import Vocabulary
from hatchery_jobs.pretrain.distributed import ProcessGroup
from hatchery_jobs.pretrain.launcher import WorkerSpec
from hatchery_jobs.runtime.context import Context
from hatchery_jobs.runtime.progress import Progress


def open_feed(
    worker: WorkerSpec, vocabulary: Vocabulary, group: ProcessGroup
) -> tuple[StoreFeed | StreamFeed, float | None]:
    """The feed, and the tokens for each byte of the validation split's text."""
    spec = worker.job.spec
    store = TokenStore(worker.tokens, row_tokens(spec))
    if spec.data.loading == "mmap":
        return store_feed(spec, store), tokens_per_byte(store)
    context: Context[PretrainRunSpec] = Context(worker.job, Progress(worker.job.stage), worker.local_folder)
    folder = worker.streams if group.is_lead else None
    if folder is not None:
        folder.mkdir(exist_ok=True)
    return stream_feed(context, store, vocabulary, group.broadcast, folder), tokens_per_byte(store)


def tokens_per_byte(store: TokenStore) -> float | None:
    """Tokens for each byte of the validation split's text."""
    split = store.index.splits["validation"]
    return split.tokens / split.text_bytes if split.text_bytes else None
