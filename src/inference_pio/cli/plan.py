"""`inference-pio plan`: the memory a model takes, before a byte of it is loaded."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inference_pio.cli.engine_options import EngineOptions
from inference_pio.cli.held import refuse_levels
from inference_pio.cli.options import AsJson, Model
from inference_pio.cli.progress import download_bars
from inference_pio.cli.session import importing
from inference_pio.cli.tables import print_facts, print_json, print_table
from inference_pio.cli.text import size
from inference_pio.errors import ResourceError
from inference_pio.security.held import held_to

if TYPE_CHECKING:
    from inference_pio.optimizations.choice import Chosen
    from inference_pio.runtime.plan import MemoryPlan
    from inference_pio.runtime.plan_only import Planned
    from inference_pio.runtime.prepared import Prepared


def plan(
    model: Model,
    engine: EngineOptions,
    max_num_seqs: Annotated[
        int, typer.Option("--max-num-seqs", metavar="N", help="Sequences at once; run and chat need one.")
    ] = 1,
    techniques: Annotated[
        bool, typer.Option("--techniques", help="Show how each technique stands, and why.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the memory that a model takes, from its headers or its configuration alone; exit code 5 where it does not
    fit.
    """
    refuse_levels(engine, "plan")
    limits, options = engine.limits(), engine.runtime_options(max_num_seqs)
    with importing():
        from inference_pio.runtime.plan_only import plan_only
    here = nullcontext() if limits is None else held_to(limits)
    with here, download_bars(quiet=False) as progress:
        found = plan_only(
            model,
            engine.dtype_of_all(),
            engine.device,
            options,
            limits,
            progress,
            engine.plugin,
            config=engine.config_fields(),
            named=None if engine.no_tuned else engine.given(max_num_seqs),
            profile=engine.profile,
        )
    planned = found.prepared
    if as_json:
        from inference_pio.cache.specs import kv_dtype_name

        print_json(
            {
                "from": "configuration" if found.described else "checkpoint",
                "file_bytes": planned.file_bytes,
                "smaller": _smaller_facts(found),
                "model": planned.config.model_name,
                "plugin": planned.plugin.manifest.name,
                "fallback": planned.plugin.manifest.fallback,
                "dtype": str(planned.dtype).removeprefix("torch."),
                "kv_dtype": kv_dtype_name(planned.kv_dtype),
                "device": str(planned.device),
                "packed_kinds": planned.packing.used_kinds(),
                "packed_weights": planned.packed_bytes,
                "mtp": planned.predicts,
                "tuned": found.note,
                "fitting": found.fitting,
                "techniques": [one.facts() for one in planned.techniques],
                **planned.plan.as_dict(),
            }
        )
    else:
        _show(found, techniques)
    if not planned.plan.fits:
        raise typer.Exit(ResourceError.exit_code)


def _show(found: Planned, techniques: bool = False) -> None:
    from inference_pio.cache.specs import kv_dtype_name

    planned = found.prepared
    plan, config = planned.plan, planned.config
    dtype, kv_dtype = str(planned.dtype).removeprefix("torch."), kv_dtype_name(planned.kv_dtype)
    print_facts(
        [
            ("model", config.model_name),
            *_plugin(planned),
            *([("planned from", "the configuration; the files are not here")] if found.described else []),
            ("checkpoint", f"{size(planned.file_bytes)} of tensors"),
            ("runs in", f"{dtype} on {planned.device}"),
            (
                "context",
                f"{plan.max_model_len:,} tokens (the model was made for {config.max_position_embeddings:,})",
            ),
        ]
    )
    print()
    rows = [
        ("weights", plan.weights, _weights(planned)),
        *_mapped(plan),
        *_paged(plan),
        (
            "KV cache",
            plan.kv_cache - plan.state,
            f"{plan.kv_tokens:,} tokens of {size(plan.kv_bytes_per_token)}, {kv_dtype}",
        ),
        *_state(plan),
        ("activations", plan.activations, "of one step"),
        ("logits", plan.logits, f"{plan.logit_rows} × {config.vocab_size:,} tokens"),
        *([("images", plan.images, "encoder of the largest one, features kept")] if plan.images else []),
        ("loading", plan.loading, f"{_loading(planned)}, before all but the weights is there"),
        ("runtime", plan.runtime, "Python, torch and its threads"),
        ("total", plan.total, ""),
        ("may be used", plan.budget, plan.budget_name),
    ]
    print_table(
        ["part", "memory", "of"], [(part, size(bytes_), why) for part, bytes_, why in rows], right=["memory"]
    )
    print()
    _show_techniques(planned.techniques, techniques)
    print()
    if found.note:
        print(f"{found.note[:1].upper()}{found.note[1:]}.")
    if found.fitting:
        print(f"{found.fitting[:1].upper()}{found.fitting[1:]}.")
    if planned.predicts:
        print(
            "A layer of the model's own guesses ahead (multi-token prediction), with weights and cache that are "
            "counted here; --no-mtp leaves it out."
        )
    where = f", with {size(plan.paged)} of layers on the disk" if plan.paged else ""
    verdict = f"It fits{where}. {_most(plan)}" if plan.fits else f"It does not fit: {plan.advice()}."
    print(f"{verdict}{_hint(found)}")
    sys.stdout.flush()


def _show_techniques(chosen: Sequence[Chosen], each: bool) -> None:
    """Those at work in a line, or how each stands and why."""
    if not each:
        at_work = ", ".join(one.technique.name for one in chosen if one.active)
        print(f"At work: {at_work}; --techniques says why, and why no others.")
        return
    print_table(
        ["technique", "status", "results", "why"],
        [
            (
                one.technique.name,
                one.standing.status,
                "exact" if one.technique.exact else "approximate",
                one.standing.reason,
            )
            for one in chosen
        ],
    )


def _plugin(planned: Prepared) -> list[tuple[str, str]]:
    """What runs it, where that is no plugin for its architecture."""
    manifest = planned.plugin.manifest
    return [("runs through", manifest.fallback)] if manifest.fallback else []


def _most(plan: MemoryPlan) -> str:
    """What this machine could hold beside the weights."""
    at_once = f", {plan.longest_at_once:,} such sequences at once" if plan.longest_at_once > 1 else ""
    return f"The longest sequence that would: {plan.longest:,} tokens{at_once}."


def _hint(found: Planned) -> str:
    if found.smaller is None:
        return ""
    asked, prepared = found.smaller
    weights = size(prepared.plan.weights)
    if prepared.plan.fits:
        mapped = prepared.plan.mapped
        where = f", with {size(mapped)} of experts on the disk" if mapped else ""
        return (
            f" With --quantize {asked} the weights take {weights}, and it fits{where}. {_most(prepared.plan)}"
        )
    return f" Even with --quantize {asked} the weights take {weights}."


def _smaller_facts(found: Planned) -> dict[str, Any] | None:
    if found.smaller is None:
        return None
    asked, prepared = found.smaller
    return {"quantize": asked, **prepared.plan.as_dict()}


def _state(plan: MemoryPlan) -> list[tuple[str, int, str]]:
    """Lines for memory that does not grow with tokens, where the model has such."""
    each = size(plan.state_bytes_per_sequence)
    rows = [
        ("state", plan.state - plan.snapshots - plan.held, f"{plan.num_seqs:,} × {each} for a sequence"),
        (
            "snapshots",
            plan.snapshots,
            f"{plan.num_snapshots:,} × {each}, states for later requests to begin with",
        ),
        (
            "drafts",
            plan.held,
            f"{plan.num_held:,} × {size(plan.state_bytes_per_draft)}, what each adds to a state",
        ),
    ]
    return [row for row in rows if row[1]]


def _mapped(plan: MemoryPlan) -> list[tuple[str, int, str]]:
    """A line for experts on the disk, where they are."""
    if not plan.mapped:
        return []
    return [
        (
            "experts",
            0,
            f"memory-mapped: {size(plan.mapped)} on disk, what is used stays in memory that is free",
        )
    ]


def _paged(plan: MemoryPlan) -> list[tuple[str, int, str]]:
    """A line for layers on the disk, where they are."""
    if not plan.paged:
        return []
    return [("layers", 0, f"paged: {size(plan.paged)} on disk, read in every step, ahead of their use")]


def _weights(planned: Prepared) -> str:
    if not planned.packing.kinds:
        return ""
    kinds = ", ".join(planned.packing.used_kinds())
    saved = planned.pages.saved_bytes if planned.pages else 0
    return f"{size(planned.packed_bytes - planned.plan.mapped - saved)} in blocks of {kinds}"


def _loading(planned: Prepared) -> str:
    return f"{'the largest tensor' if planned.ahead == 0 else f'{planned.ahead + 1} tensors'} read at once"
