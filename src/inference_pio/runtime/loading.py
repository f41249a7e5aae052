"""From a plan to a loaded model, and to an engine of the right size."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial

from torch import nn

from inference_pio import ops
from inference_pio.cache.planner import plan_cache
from inference_pio.cache.retention import EvictionPolicy
from inference_pio.engine.config import EngineConfig
from inference_pio.engine.core import EngineCore
from inference_pio.engine.media import MediaSide
from inference_pio.loader.prefix_store import PrefixStore
from inference_pio.loader.stack_file import StackFile
from inference_pio.loader.store import ModelStore
from inference_pio.loader.weights import load_weights
from inference_pio.optimizations.choice import apply_all
from inference_pio.optimizations.hardware.merged_projections import separate_all
from inference_pio.parallel import RankedModel, Shard
from inference_pio.plugin.serving import serving_of
from inference_pio.runtime.calibration import calibration_windows
from inference_pio.runtime.performance import meter_for
from inference_pio.runtime.prepared import Prepared


def load_model(ready: Prepared, store: ModelStore) -> nn.Module:
    """Weights into the model, or each rank's part of them, then the plugin's optimisations, in order."""
    if isinstance(ready.model, RankedModel):
        ranks = ready.model.rank_models()
        loaded = [
            _load(ready, store, rank, Shard(number, len(ranks), ready.model.group))
            for number, rank in enumerate(ranks)
        ]
        ready.model.ranks = nn.ModuleList(loaded)
        return ready.model
    return _load(ready, store, ready.model, Shard())


def make_engine(
    ready: Prepared, model: nn.Module, eos_token_ids: frozenset[int], prefixes: PrefixStore | None
) -> EngineCore:
    """An engine for a loaded model."""
    return EngineCore(
        model,
        ready.serving.cache_specs,
        engine_config(ready),
        vocab_size=ready.config.vocab_size,
        eos_token_ids=eos_token_ids,
        prefix_policy=ready.plugin.prefix_policy(ready.config),
        device=ready.device,
        media=MediaSide(model, ready.device) if ready.images else None,
        tier=prefixes,
        meter=meter_for(ready.device),
    )


def _load(ready: Prepared, store: ModelStore, model: nn.Module, shard: Shard) -> nn.Module:
    with _stack_file(ready, store) as stacks, ready.page_file(store) as pages:
        load_weights(
            model,
            ready.files.checkpoint,
            ready.weight_map,
            shard_plan=ready.plugin.shard_plan(ready.config),
            shard=shard,
            dtype=ready.dtype,
            device=ready.device,
            packing=ready.packing,
            stacks=stacks,
            pages=pages,
            ahead=ready.ahead,
            progress=ready.progress,
        )
    model = model.eval()
    for step in ready.plugin.optimizations(ready.config):
        model = step.apply(model, ready.config)
    if not serving_of(model).merged:
        separate_all(model)
    serving_of(model).calibration = partial(calibration_windows, ready)
    model = apply_all(ready.techniques, model, ready.config, "weights")
    serving_of(model).calibration = None  # it holds what holds the model
    return model


def _stack_file(ready: Prepared, store: ModelStore) -> AbstractContextManager[StackFile | None]:
    """Where experts lie that the plan has on the disk; nothing where they are in memory."""
    if not ready.mapped:
        return nullcontext()
    return StackFile(
        store.stacks_of(ready.opened.source.path),
        ready.stack_key,
        ready.mapped,
        lambda needed: store.require_room(f"the file of {ready.config.model_name}'s experts", needed),
    )


def engine_config(ready: Prepared) -> EngineConfig:
    """The engine's numbers out of the plan, and of what the model asks."""
    plan, options, serving = ready.plan, ready.options, ready.serving
    eviction = None
    if serving.evicts and options.kv_cache_budget is not None:
        eviction = EvictionPolicy(budget=options.kv_cache_budget)
    cache = plan_cache(
        plan.kv_cache - plan.snapshots - plan.held,
        serving.cache_specs,
        block_size=options.block_size,
        max_num_seqs=plan.num_seqs,
        max_model_len=plan.max_model_len,
        least_len=None if eviction is None else eviction.least_room(options.block_size),
    )
    kept = None
    if cache.bytes_per_block:
        kept = max(0, serving.prefix_cache_bytes - plan.snapshots) // cache.bytes_per_block
    return EngineConfig(
        max_model_len=plan.max_model_len,
        max_num_seqs=cache.num_slots,
        max_num_batched_tokens=options.max_num_batched_tokens,
        block_size=options.block_size,
        num_blocks=cache.num_blocks,
        enable_prefix_caching=serving.prefix_caching,
        num_snapshots=plan.num_snapshots,
        prefix_cache_max_blocks=kept,
        explain_cache=options.explain_cache,
        torch_groups=frozenset(ops.GROUPS) - serving.native_groups
        if ready.device.type == "cpu"
        else frozenset(),
        recompute=serving.recompute,
        vocabulary=serving.vocabulary,
        logit_rows=serving.logit_rows,
        speculation=0 if serving.recompute else options.speculation,
        eviction=eviction,
    )
