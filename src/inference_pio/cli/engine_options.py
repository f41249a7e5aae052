"""Options of verbs that load a model: how it runs, and within which limits."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import typer

from inference_pio.cli.limit_options import LimitOptions
from inference_pio.cli.options import AcceptLicence
from inference_pio.config import PROFILES, Profile, find_profile
from inference_pio.plugin.runtime import EXPERTS, KV_DTYPES, RuntimeOptions
from inference_pio.security import SecurityLevel

_PANEL = "Engine"


def _engine(text: str, *names: str, value: str | None = None) -> Any:
    return typer.Option(*names, help=text, metavar=value, rich_help_panel=_PANEL, show_default=False)


@dataclass(frozen=True)
class EngineOptions(LimitOptions):
    """How the model runs, and within which limits."""

    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"] | None,
        _engine(
            "auto (a GGUF file's blocks as they are where the kernels take them; else bfloat16 where the device "
            "has it, else float32), or dense weights in float32, bfloat16 or float16.",
            "--dtype",
            value="NAME",
        ),
    ] = None
    device: Annotated[
        str, _engine("auto (the first GPU, else the CPU), cpu, cuda or cuda:N.", "--device", value="NAME")
    ] = "auto"
    plugin: Annotated[
        str | None,
        _engine(
            "The plugin to run it with; transformers is the bridge to Transformers' own modules. (the one for its "
            "architecture)",
            "--plugin",
            value="NAME",
        ),
    ] = None
    profile: Annotated[
        str | None,
        _engine(f"Options for {', '.join(PROFILES)}, where none is given.", "--profile", value="NAME"),
    ] = None
    no_tuned: Annotated[
        bool, _engine("Leave aside what `tune` found best for this model here.", "--no-tuned")
    ] = False
    threads: Annotated[
        int | None, _engine("Compute threads. (one for each core)", "--threads", value="N")
    ] = None
    max_model_len: Annotated[
        int | None,
        _engine(
            "Prompt and answer together, in tokens. (what model and memory allow)",
            "--max-model-len",
            value="N",
        ),
    ] = None
    kv_cache_memory_gb: Annotated[
        float | None,
        _engine("Memory for keys and values, in GB. (as needed)", "--kv-cache-memory-gb", value="GB"),
    ] = None
    kv_cache_dtype: Annotated[
        str | None,
        _engine(
            f"Keys and values in {', '.join(KV_DTYPES[:-1])} or {KV_DTYPES[-1]}. (default auto)",
            "--kv-cache-dtype",
            value="NAME",
        ),
    ] = None
    kv_cache_budget: Annotated[
        int | None,
        _engine(
            "Keep this many tokens of a sequence at most, those that its end attends to. (all)",
            "--kv-cache-budget",
            value="N",
        ),
    ] = None
    quantize: Annotated[
        str | None,
        _engine(
            "Round weights when they are loaded: int8 or int4, with the columns that share a scale (32, 64 or 128) "
            "after a colon if not 32, as in int4:64. (weights as the file has them)",
            "--quantize",
            value="KIND",
        ),
    ] = None
    experts: Annotated[
        str | None,
        _engine(
            "Experts in blocks: in memory, or on disk, in a file that is mapped; auto takes the disk where memory is "
            "too small.",
            "--experts",
            value="|".join(EXPERTS),
        ),
    ] = None
    resident_weights_gb: Annotated[
        float | None,
        _engine(
            "Weights in memory at a time, in GB, at most: the other layers are read from the disk when they are used. "
            "(all, where they fit)",
            "--resident-weights-gb",
            value="GB",
        ),
    ] = None
    speculation: Annotated[
        int | None,
        _engine(
            f"Guess this many tokens ahead at most, where it pays; 0 is off. (default {RuntimeOptions.speculation})",
            "--speculation",
            value="N",
        ),
    ] = None
    quality: Annotated[
        Literal["exact", "faithful", "fast"] | None,
        _engine(
            "How far approximate techniques may move answers, by the model's receipt (see calibrate). "
            f"(default {RuntimeOptions.quality})",
            "--quality",
            value="LEVEL",
        ),
    ] = None
    max_num_batched_tokens: Annotated[
        int | None,
        _engine(
            f"Tokens of one step; longer prompts are cut. (default {RuntimeOptions.max_num_batched_tokens})",
            "--max-num-batched-tokens",
            value="N",
        ),
    ] = None
    block_size: Annotated[
        int | None,
        _engine(
            f"Tokens of one block of the cache. (default {RuntimeOptions.block_size})",
            "--block-size",
            value="N",
        ),
    ] = None
    tensor_parallel_size: Annotated[
        int,
        _engine(
            "Divide dense weights over N ranks, threads of this process: shows a shard plan at work, gains no speed. "
            "(default 1)",
            "--tensor-parallel-size",
            value="N",
        ),
    ] = RuntimeOptions.tensor_parallel_size
    keep_vocabulary: Annotated[
        int | None,
        _engine(
            "Only the first N tokens and the last thousand can be answered. (all)",
            "--keep-vocabulary",
            value="N",
        ),
    ] = None
    attention_budget: Annotated[
        int,
        _engine(
            "Keys that a query reads under sparse_decode, sparse_prefill and sink_window, from 96 up. "
            f"(default {RuntimeOptions.attention_budget})",
            "--attention-budget",
            value="N",
        ),
    ] = RuntimeOptions.attention_budget
    fit: Annotated[
        bool,
        _engine(
            "Where the memory does not do, make the model fit: fewer sequences, shorter steps, what its receipts "
            "allow, layers on the disk.",
            "--fit",
        ),
    ] = RuntimeOptions.fit
    enable: Annotated[
        list[str] | None,
        _engine(
            "A technique to have at work, whatever a receipt says; may be given again. (see plugins NAME)",
            "--enable",
            value="NAME",
        ),
    ] = None
    disable: Annotated[
        list[str] | None,
        _engine("A technique to do without; may be given again.", "--disable", value="NAME"),
    ] = None
    allow_untested: Annotated[
        bool,
        _engine(
            "Let techniques act together that nobody has tested together (see plugins --matrix).",
            "--allow-untested",
        ),
    ] = RuntimeOptions.allow_untested
    no_mtp: Annotated[
        bool,
        _engine("Do not load a checkpoint's own layer for guesses (multi-token prediction).", "--no-mtp"),
    ] = False
    no_prefix_caching: Annotated[
        bool, _engine("Compute equal beginnings of prompts again.", "--no-prefix-caching")
    ] = False
    prefix_cache_disk_gb: Annotated[
        float,
        _engine(
            "Keep cached prompts on the disk for later runs, in GB at most; the files tell what the prompts were. "
            "(none)",
            "--prefix-cache-disk-gb",
            value="GB",
        ),
    ] = RuntimeOptions.prefix_cache_disk_gb
    explain_cache: Annotated[
        bool,
        _engine("Say what of the prompt was found in the prefix cache, and why no more.", "--explain-cache"),
    ] = False
    offline: Annotated[bool, _engine("Download nothing.", "--offline")] = False
    accept_licence: AcceptLicence = False

    def given(self, max_num_seqs: int | None) -> dict[str, Any]:
        """Fields of `RuntimeOptions` that were given, and no others: those that are not as they are by default here.
        Wrong values raise `UsageError` now, before anything is looked for.
        """
        stated = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name in RuntimeOptions.names()
        }
        given = {name: value for name, value in stated.items() if value != getattr(EngineOptions, name)}
        given |= {"mtp": False} if self.no_mtp else {}
        given |= {"download": False} if self.offline else {}
        given |= {"max_num_seqs": max_num_seqs} if max_num_seqs is not None else {}
        RuntimeOptions(**given)
        return given

    def keywords(self, max_num_seqs: int | None) -> dict[str, Any]:
        """What `LLM` takes of it, beside profile and progress."""
        return {
            "dtype": self.dtype,
            "device": self.device,
            "plugin": self.plugin,
            "enable_prefix_caching": False if self.no_prefix_caching else None,
            "security_level": None if self.security_level is None else SecurityLevel(self.security_level),
            "enforcement": self.enforcement,
            "resource_limits": self.limits(),
            **self.given(max_num_seqs),
        }

    def runtime_options(self, max_num_seqs: int) -> RuntimeOptions:
        """What was given, over the profile's."""
        return RuntimeOptions(**self.asked(max_num_seqs))

    def asked(self, max_num_seqs: int | None) -> dict[str, Any]:
        """Fields of `RuntimeOptions`: what was given, over the profile's."""
        return {**self._profile().engine, **self.given(max_num_seqs)}

    def dtype_of_all(self) -> str:
        """What was given, else the profile's, else "auto"."""
        return self.dtype or str(self._profile().config.get("torch_dtype", "auto"))

    def config_fields(self) -> dict[str, Any]:
        """Of the model's configuration, beside dtype and device: what was given, over the profile's."""
        given = {"use_prefix_caching": False} if self.no_prefix_caching else {}
        return {**self._profile().config, **given}

    def _profile(self) -> Profile:
        return find_profile(self.profile) if self.profile is not None else Profile("")
