"""The stage of TokenizerBuild: trains a tokenizer on a corpus and measures it."""
