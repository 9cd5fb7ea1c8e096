"""Special tokens of tokenizers of all kinds."""

import json

import pytest
from tokenizers import AddedToken, Tokenizer, models

from hatchery_jobs.pretrain.data.vocabulary import load_vocabulary
from hatchery_jobs.runtime.errors import DataError


def folder(tmp_path, texts: list[str], config: dict, *, special: tuple[str, ...] = ()):
    tokenizer = Tokenizer(models.WordLevel({text: n for n, text in enumerate(texts)}, unk_token=texts[0]))
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in special])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


def test_roles_are_read_by_id(tmp_path):
    texts = ["<e>", "<b>", "<p>", "<m>", "<c>", "<s>", "a"]
    roles = dict(
        zip(("eos_token", "bos_token", "pad_token", "mask_token", "cls_token", "sep_token"), texts, strict=False)
    )
    roles["mask_token"] = {"content": "<m>", "lstrip": True}  # as older libraries save it
    found = load_vocabulary(folder(tmp_path, texts, roles))
    special = found.special
    assert found.eos_id == special.eos == 0
    assert (special.bos, special.pad, special.mask, special.cls, special.sep) == (1, 2, 3, 4, 5)
    assert special.every == {0, 1, 2, 3, 4, 5}
    assert special.padding() == 2


def test_a_text_begins_and_ends_as_in_roberta_where_nothing_else_is_said(tmp_path):
    special = load_vocabulary(folder(tmp_path, ["<s>", "</s>"], {"bos_token": "<s>", "eos_token": "</s>"})).special
    assert (special.cls, special.sep) == (0, 1)


def test_documents_of_bert_end_with_its_separator(tmp_path):
    found = load_vocabulary(folder(tmp_path, ["[UNK]", "[SEP]"], {"sep_token": "[SEP]"}))
    assert found.eos_id == found.special.sep == 1


def test_sentinels_are_counted_up_to_the_first_gap(tmp_path):
    texts = ["</s>", "<extra_id_0>", "<extra_id_2>"]
    special = load_vocabulary(folder(tmp_path, texts, {"eos_token": "</s>"}, special=("<extra_id_1>", "<x>"))).special
    assert special.sentinels == (1, 3, 2)
    assert special.every == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("config", [{}, {"eos_token": "<gone>"}])
def test_without_an_end_there_is_nothing_between_documents(tmp_path, config):
    with pytest.raises(DataError, match="which is no token of the vocabulary"):
        load_vocabulary(folder(tmp_path, ["a", "b"], config))


def test_a_missing_role_is_named_with_its_remedy(tmp_path):
    special = load_vocabulary(folder(tmp_path, ["</s>"], {"eos_token": "</s>"})).special
    with pytest.raises(DataError, match=r"no mask_token.*set spec\.specialTokens\.mask of the TokenizerBuild"):
        special.needed("mask")
    with pytest.raises(DataError, match="no pad_token"):
        special.padding()
