"""The numbers of a run, as its resource reports them."""

from hatchery_api.resources.pretrain import LastCheckpoint, Loss, PretrainResult
from hatchery_jobs.pretrain.state import goodput, perplexity
from hatchery_jobs.pretrain.training.trainer import Trainer


def result(run: Trainer) -> PretrainResult:
    """The numbers so far."""
    state, setup = run.state, run.setup
    last = None
    if state.checkpoint_step is not None and state.checkpoint_time is not None:
        last = LastCheckpoint(step=state.checkpoint_step, time=state.checkpoint_time)
    return PretrainResult(
        parameters=setup.parameters,
        tokens_per_step=setup.tokens_per_step,
        step=state.step,
        steps=run.spec.schedule.steps,
        tokens=state.step * setup.tokens_per_step,
        loss=Loss(train=state.train_loss, eval=state.eval_loss, initial=state.initial_loss),
        perplexity=perplexity(state.eval_loss),
        initial_perplexity=perplexity(state.initial_loss),
        bits_per_byte=None if state.eval_loss is None else run.objective.bits_per_byte(state.eval_loss),
        tokens_per_second=setup.tokens_per_second(state.step, state.train_seconds),
        last_checkpoint=last,
        resumed_from=state.resumed_from or None,
        mfu=setup.mfu(state.step, state.train_seconds),
        goodput=goodput(state),
        skipped=sum(behind - first for first, behind in state.skipped) or None,
        rollbacks=state.rollbacks or None,
        micro_batch=None if run.rows == run.spec.batch.per_device else run.rows,
    )
