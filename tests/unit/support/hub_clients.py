"""What datasets and transformers do against a Hub; run as a program, because they fix the endpoint when imported.

Usage: hub_clients.py FOLDER, with HF_ENDPOINT and HF_TOKEN set. Prints one JSON object of what was seen. A socket guard
refuses every address but the endpoint's.
"""

import json
import os
import socket
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

_connect = socket.socket.connect
_resolve = socket.getaddrinfo
STRAYED: list[str] = []


def guarded_connect(self, address):
    if address[:2] != (HOST, PORT):
        STRAYED.append(str(address))
        raise ConnectionRefusedError(f"not the endpoint: {address}")
    return _connect(self, address)


def guarded_resolve(host, port, *args, **kwargs):
    if host != HOST:
        STRAYED.append(f"{host}:{port}")
        raise socket.gaierror(f"not the endpoint: {host}")
    return _resolve(host, port, *args, **kwargs)


def pushed_dataset(folder: Path) -> dict:
    import datasets
    from huggingface_hub import HfApi

    table = datasets.Dataset.from_dict({"content": [f"print({i})" for i in range(300)], "size": list(range(300))})
    source = folder / "corpus"
    (source / "data").mkdir(parents=True)
    table.select(range(200)).to_parquet(source / "data" / "train-00000-of-00002.parquet")
    table.select(range(200, 300)).to_parquet(source / "data" / "train-00001-of-00002.parquet")
    (source / "README.md").write_text("---\nlicense: mit\n---\n# Corpus\n")
    api = HfApi()
    api.create_repo("lab/corpus", repo_type="dataset", private=True)
    commit = api.upload_folder(repo_id="lab/corpus", repo_type="dataset", folder_path=source)
    loaded = datasets.load_dataset("lab/corpus", split="train", revision=commit.oid)
    mark("streaming")
    streamed = list(datasets.load_dataset("lab/corpus", split="train", revision=commit.oid, streaming=True))
    mark("push_to_hub")
    table.push_to_hub("lab/pushed", private=True)
    again = datasets.load_dataset("lab/pushed", split="train", revision=api.dataset_info("lab/pushed").sha)
    return {
        "loaded": loaded.to_dict() == table.to_dict(),
        "streamed": streamed == table.to_list(),
        "pushed": again.to_dict() == table.to_dict(),
    }


def pushed_tokenizer(folder: Path) -> dict:
    from huggingface_hub import HfApi
    from tokenizers import ByteLevelBPETokenizer
    from transformers import AutoConfig, AutoTokenizer, GPT2Config, PreTrainedTokenizerFast

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(["def f(x):\n    return x + 1\n"] * 10, vocab_size=300, special_tokens=["<|end|>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token="<|end|>")
    tokenizer.save_pretrained(folder / "model")
    GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=300).save_pretrained(folder / "model")
    api = HfApi()
    api.create_repo("lab/model", private=True)
    commit = api.upload_folder(repo_id="lab/model", folder_path=folder / "model")
    mark("tokenizer")
    again = AutoTokenizer.from_pretrained("lab/model", revision=commit.oid)
    text = "def g(x):\n    return x"
    return {
        "same_ids": again(text)["input_ids"] == tokenizer(text)["input_ids"],
        "eos": again.eos_token,
        "layers": AutoConfig.from_pretrained("lab/model", revision=commit.oid).n_layer,
    }


def mark(name: str) -> None:
    """Leaves a line in the server's log that says where a scenario begins."""
    from huggingface_hub import get_session

    get_session().get(f"{os.environ['HF_ENDPOINT']}/mark/{name}")


if __name__ == "__main__":
    endpoint = urlsplit(os.environ["HF_ENDPOINT"])
    HOST, PORT = endpoint.hostname, endpoint.port
    socket.socket.connect = guarded_connect
    socket.getaddrinfo = guarded_resolve
    time.sleep = lambda _seconds: None
    work = Path(sys.argv[1])
    print(json.dumps({**pushed_dataset(work), **pushed_tokenizer(work), "strayed": STRAYED}))
