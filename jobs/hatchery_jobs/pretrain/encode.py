"""Stage `encode`: corpora and a tokenizer become a memory-mappable token store.

Pods share the parts of the corpora: each encodes every n-th part, then helps with those that are missing. Whichever pod
finishes first completes the artifact; its bytes depend on the inputs alone.
"""

import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from hatchery_api.resources.pretrain import PretrainResult, PretrainRunSpec
from hatchery_jobs.pretrain.data import EncodePlan, EncodeWorker, TokenStore, Vocabulary
from hatchery_jobs.pretrain.model import resolve_config
from hatchery_jobs.pretrain.objectives import objective_info, row_tokens
from hatchery_jobs.pretrain.preflight import check, check_hub, check_length
from hatchery_jobs.runtime import Context, Outcome, local_path, storage_errors


def run(context: Context[PretrainRunSpec]) -> Outcome:
    """Encodes all corpora in the order of the spec, each document followed by the end-of-text token.

    Raises:
        DataError: a split is shorter than one sequence, or a file cannot be read.
        SpecError: the model of the spec cannot be built, or the Hub refuses it; training would fail hours later.
        Interrupted: the pod is being terminated.
    """
    spec = context.job.spec
    pod, pods = int(os.environ.get("HATCHERY_NODE_INDEX") or 0), int(os.environ.get("HATCHERY_NODES") or 1)
    plan = EncodePlan.of(context, reads_pairs=objective_info(spec).reads_pairs(spec))
    draft = context.draft(plan.code_version, plan.source_digests, plan.facts)
    if not spec.model.from_:
        resolve_config(spec, plan.vocabulary)
    if pod == 0 and spec.hub and spec.encode_token == spec.hub.token_secret:
        check_hub(context)
    if (found := draft.existing()) is not None:
        return Outcome(*found, expected_result(context, plan.vocabulary, found[1]), cached=True)
    worker = EncodeWorker(context, plan, pod, pods)
    worker.encode()
    own = replace(draft, folder=draft.folder / str(pod))
    with storage_errors(str(own.folder)):
        shutil.rmtree(own.folder, ignore_errors=True)
        own.folder.mkdir(parents=True)
        worker.assemble(own.folder)
    result = expected_result(context, plan.vocabulary, own.folder)
    artifact, folder = own.commit()
    with suppress(OSError):  # other pods still have their folders in it
        draft.folder.rmdir()
    return Outcome(artifact, folder, result)


def expected_result(context: Context[PretrainRunSpec], vocabulary: Vocabulary, tokens: Path) -> PretrainResult:
    """What training will need, checked before any device is allocated.

    Raises:
        JobError: training cannot work.
    """
    spec = context.job.spec
    store = TokenStore(tokens, row_tokens(spec))
    check_length(store)
    facts = {"tokens_per_step": spec.batch.sequences * spec.data.sequence_length, "steps": spec.schedule.steps}
    if spec.model.from_:  # weights are an input of the train stage alone, and they decide the sizes
        return PretrainResult(**facts)
    processes = spec.parallelism.processes_per_node
    workers = spec.parallelism.nodes * (1 if processes == "auto" else processes)
    root = local_path(context.job.output.root)
    needs = check(spec, store, vocabulary, None, workers=workers, folder=root)
    return PretrainResult(
        **facts,
        parameters=needs.config.parameters,
        epochs=needs.epochs or None,
        checkpoint_bytes=needs.checkpoint_bytes,
        state_bytes=needs.state_bytes,
    )
