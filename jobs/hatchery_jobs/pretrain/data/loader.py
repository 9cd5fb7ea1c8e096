"""Opens the feed that a spec asks for: a store, or text while training."""

from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_jobs.pretrain.data.feed import StoreFeed, store_feed
from hatchery_jobs.pretrain.data.row_lengths import row_tokens
from hatchery_jobs.pretrain.data.stream_feed import StreamFeed, stream_feed
from hatchery_jobs.pretrain.data.token_store import TokenStore
from hatchery_jobs.pretrain.data.vocabulary import Vocabulary
from hatchery_jobs.pretrain.distributed.process_group import ProcessGroup
from hatchery_jobs.pretrain.launcher.protocol import STREAMS, WorkerSpec
from hatchery_jobs.runtime import Context, ProgressReporter


def open_feed(
    order: WorkerSpec, vocabulary: Vocabulary, team: ProcessGroup
) -> tuple[StoreFeed | StreamFeed, float | None]:
    """The feed, and the tokens for each byte of the validation split's text."""
    spec = order.job.spec
    store = TokenStore(order.tokens, row_tokens(spec))
    if spec.data.loading == "mmap":
        return store_feed(spec, store), tokens_per_byte(store)
    context: Context[PretrainRunSpec] = Context(order.job, ProgressReporter(order.job.stage), order.signs)
    folder = order.folder / STREAMS if team.leads else None
    if folder is not None:
        folder.mkdir(exist_ok=True)
    return stream_feed(context, store, vocabulary, team.told_by_lead, folder), tokens_per_byte(store)


def tokens_per_byte(store: TokenStore) -> float | None:
    """Tokens for each byte of the validation split's text."""
    split = store.index.splits["validation"]
    return split.tokens / split.text_bytes if split.text_bytes else None
