"""Makes the run that a worker trains: model, optimizer and data, at the newest checkpoint."""

import shutil

import torch

from hatchery_api.conditions import Reason
from hatchery_jobs.errors import RetryableError
from hatchery_jobs.logs import log
from hatchery_jobs.pretrain.checkpoint import Checkpoints
from hatchery_jobs.pretrain.data import TokenStore
from hatchery_jobs.pretrain.devices import device_of
from hatchery_jobs.pretrain.model import build_model
from hatchery_jobs.pretrain.objectives.build import build_objective
from hatchery_jobs.pretrain.optimizer import build_optimizer
from hatchery_jobs.pretrain.orders import CHECKPOINTS, Sign, WorkOrder
from hatchery_jobs.pretrain.record import Recorder, Silence, keep_log
from hatchery_jobs.pretrain.setup import Setup
from hatchery_jobs.pretrain.snapshot import apply
from hatchery_jobs.pretrain.state import RunState
from hatchery_jobs.pretrain.team import Team, gather_team
from hatchery_jobs.pretrain.trainer import Trainer
