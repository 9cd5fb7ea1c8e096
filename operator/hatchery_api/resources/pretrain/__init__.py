"""Package pretrain."""
