"""The `evaluate` stage of EvalRun: runs tasks on a model and writes results, continuations and a card.

The runtime loads `stage.run` by name; no package may import this one.
"""
