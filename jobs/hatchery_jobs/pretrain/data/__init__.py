"""Text to rows of tokens: encodes corpora into a token store, and reads training rows from it or from text.

May be imported by every package and module of `pretrain`; imports `readers` and `runtime`, and never torch.
"""

from hatchery_jobs.pretrain.data.encode_worker import EncodePlan, EncodeWorker
from hatchery_jobs.pretrain.data.loader import open_loader
from hatchery_jobs.pretrain.data.token_store import TokenIndex, TokenStore
from hatchery_jobs.pretrain.data.types import DataSource, PairSource, Rows, Tokens
from hatchery_jobs.pretrain.data.vocabulary import SpecialIds, Vocabulary, copy_tokenizer, load_vocabulary

__all__ = [
    "DataSource",
    "EncodePlan",
    "EncodeWorker",
    "PairSource",
    "Rows",
    "SpecialIds",
    "TokenIndex",
    "TokenStore",
    "Tokens",
    "Vocabulary",
    "copy_tokenizer",
    "load_vocabulary",
    "open_loader",
]
