from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from tests.support.hub_server import HubServer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from hatchery_api.conditions import Reason
from hatchery_api.placement import Hub
from hatchery_api.resources.tokenizer import BaseTokenizer, TokenizerBuildSpec
from hatchery_jobs.hub.push import push_folder
from hatchery_jobs.runtime.errors import RetryableError, SpecError
from hatchery_jobs.tokenizer.retrain import base_roles, load_base, resolve_base, retrained

NO_HUB = "http://127.0.0.1:1"
pytestmark = pytest.mark.filterwarnings("ignore:Use .content=:DeprecationWarning")


def spec(size: int = 400) -> TokenizerBuildSpec:
    return TokenizerBuildSpec.model_validate({"corpusRef": {"name": "c"}, "from": {"base": "/base"}, "vocabSize": size})


def llama_like(folder: Path, texts: list[str], *, prefix_space: bool = False) -> Path:
    """Byte-level BPE whose post-processor is a sequence that puts a begin token, with a high id, in front."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(["<begin>", "<end>"])
    template = processors.TemplateProcessing(
        single="<begin> $A", special_tokens=[("<begin>", tokenizer.token_to_id("<begin>"))]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<begin>", eos_token="<end>").save_pretrained(folder)
    return folder


def bert_like(folder: Path, texts: list[str]) -> Path:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", tokenizer.token_to_id("[SEP]")), ("[CLS]", tokenizer.token_to_id("[CLS]"))
    )
    roles = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles).save_pretrained(folder)
    return folder


def test_special_ids_are_those_of_the_new_vocabulary(tmp_path: Path, programs: list[str]) -> None:
    base = load_base(llama_like(tmp_path / "base", programs))
    old_begin = base.backend_tokenizer.token_to_id("<begin>")
    new = retrained(base, spec(), [programs])
    assert new.get_vocab_size() == 400 <= old_begin
    assert new.encode("x").ids[0] == new.token_to_id("<begin>") < 400
    assert new.encode("x").tokens == ["<begin>", "x"]
    assert base_roles(base) == {"bos_token": "<begin>", "eos_token": "<end>"}


def test_other_models_are_retrained_too(tmp_path: Path, programs: list[str]) -> None:
    base = load_base(bert_like(tmp_path / "base", programs))
    new = retrained(base, spec(500), [programs])
    assert new.get_vocab_size() == 500
    assert new.encode("DEF x").tokens == ["[CLS]", "def", "x", "[SEP]"]


def test_a_base_that_adds_a_space_is_refused(tmp_path: Path, programs: list[str]) -> None:
    with pytest.raises(SpecError, match=r"spec\.from\.base: the design is lossy"):
        load_base(llama_like(tmp_path / "base", programs, prefix_space=True))


def test_a_folder_is_found_by_claim_and_by_path_with_the_digest_of_its_files(
    tmp_path: Path, programs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = llama_like(tmp_path / "store" / "base", programs)
    monkeypatch.setenv("HATCHERY_CLAIMS_PATH", str(tmp_path))
    one = resolve_base(BaseTokenizer(base="claim://store/base"), NO_HUB)
    assert one == resolve_base(BaseTokenizer(base=str(folder)), NO_HUB)
    (folder / "tokenizer_config.json").write_text("{}")
    assert resolve_base(BaseTokenizer(base=str(folder)), NO_HUB).digest != one.digest


def test_an_empty_folder_and_a_folder_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"spec\.from\.base: .* holds no tokenizer") as caught:
        resolve_base(BaseTokenizer(base=str(tmp_path)), NO_HUB)
    assert caught.value.reason == Reason.SOURCE_NOT_FOUND
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SpecError, match=r"spec\.from\.base: cannot be loaded"):
        load_base(tmp_path)


def test_a_base_on_the_hub_is_its_commit(tmp_path: Path, programs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = llama_like(tmp_path / "base", programs)
    (folder / "model.safetensors").write_bytes(b"never read")
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with HubServer(tmp_path / "hub") as hub:
        pushed = push_folder(folder, Hub(repo="org/base"), "model", "first", endpoint=hub.url)
        base = resolve_base(BaseTokenizer(base="org/base"), hub.url)
        assert base.digest == pushed.revision
        tokenizer: Any = load_base(base.folder(tmp_path / "scratch"))
        with pytest.raises(SpecError, match=r"spec\.from\.base: org/base at v9 on .*not found") as unknown:
            resolve_base(BaseTokenizer(base="org/base", revision="v9"), hub.url)
    assert tokenizer.bos_token == "<begin>"
    assert not (tmp_path / "scratch" / "base" / "model.safetensors").exists()
    assert unknown.value.reason == Reason.HUB_NOT_FOUND


def test_a_hub_that_is_away_is_tried_again() -> None:
    with pytest.raises(RetryableError, match=r"spec\.from\.base: org/base .*cannot be reached") as caught:
        resolve_base(BaseTokenizer(base="org/base"), NO_HUB)
    assert caught.value.reason == Reason.HUB_UNAVAILABLE
