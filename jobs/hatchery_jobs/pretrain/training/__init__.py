"""The training loop of one worker, and what it is built from.

No other package imports it: the launcher starts `python -m hatchery_jobs.pretrain.training.loop` under torchrun. It
exports nothing, because importing the loop here would load it twice.
"""
