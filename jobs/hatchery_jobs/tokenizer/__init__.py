"""The `vocabulary` stage of TokenizerBuild: trains a tokenizer on a corpus, measures it and writes it with a card.

The runtime loads `stage.run` by name; no package may import this one.
"""
