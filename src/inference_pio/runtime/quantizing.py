"""A model's weights in fewer bits, written as a checkpoint that loads like any other."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from inference_pio import ops
from inference_pio.errors import ResourceError, UsageError
from inference_pio.layers import Linear
from inference_pio.loader.converted import unpermuted
from inference_pio.loader.dequantize import DECODERS
from inference_pio.loader.draft import TensorsOut, drafted, require_target
from inference_pio.loader.gguf import GGUFFile
from inference_pio.loader.rounding import as_blocks, kinds_of, parts_of, seen_targets
from inference_pio.loader.tensor_info import HoldsBlocks
from inference_pio.loader.weight_files import SINGLE
from inference_pio.loader.weight_plan import Piece, WeightPlan
from inference_pio.loader.weights import audit
from inference_pio.loader.write_gguf import gguf_layout
from inference_pio.loader.write_safetensors import copy_beside, safetensors_layout
from inference_pio.metrics.memory import available_bytes
from inference_pio.ops.gptq import Compensation, compensated_rows
from inference_pio.ops.rounding import quantize_rows
from inference_pio.optimizations.hardware.calibration_pass import visit_linears
from inference_pio.plugin.quantization import Recipe
from inference_pio.plugin.registry import default_registry
from inference_pio.plugin.runtime import Progress, RuntimeOptions
from inference_pio.runtime.calibration import calibration_windows
from inference_pio.runtime.loading import load_model
from inference_pio.runtime.opened import OpenedModel, model_store, open_model
from inference_pio.runtime.prepared import Prepared, prepare_model, scratch_of

_PART_BYTES = 64 << 20  # of floats, at once, of a tensor that is rounded to nearest or kept
_FILE_TYPES = {"Q4_1": 3, "Q8_0": 7}  # general.file_type: llama_ftype in llama.h


@dataclass(frozen=True)
class Written:
    """What became of a model.

    compensated  matrices rounded by what the calibration text says of their inputs; `nearest` without
    kept         tensors left as they were
    tokens       of the text that were used
    """

    path: Path
    recipe: Recipe
    compensated: int
    nearest: int
    kept: int
    tokens: int
    source_bytes: int
    nbytes: int
    seconds: float


def quantize_model(
    model: str,
    out: Path,
    recipe: Recipe,
    text: str,
    *,
    options: RuntimeOptions | None = None,
    progress: Progress | None = None,
) -> Written:
    """Write `model` with its weights rounded as `recipe` says: of a GGUF file one file `out`, of safetensors a folder.

    With "gptq" the model is loaded and `text` goes through it once, as sequences of 512 tokens in one step; each linear
    map is rounded when the model first comes to it, by the inputs that the weights rounded before leave it. In memory
    are then the model as it is usually loaded, the activations of those tokens, and of one map at a time its weight in
    float32 and a few matrices [in_features, in_features].

    Args:
        options: `download` and `accept_licence` count.
        progress: called with bytes rounded, bytes to round, "rounding weights"; before, as loading calls it.

    Raises:
        UsageError: the text is too short, there is nothing to round, or `out` is there already.
        UnavailableError: the disk is full. Whatever happens, of `out` there is all or nothing.
        InferencePIOError: as for loading the model.
    """
    started = perf_counter()
    require_target(out)
    sizes = replace(options or RuntimeOptions(), max_model_len=1, max_num_seqs=1)
    opened = open_model(model, sizes, progress)
    with opened.checkpoint:
        rounding = _Rounding(opened, recipe, sizes, progress)
        rounding.write(out, rounding.windows(text))
        return rounding.written(out, perf_counter() - started)


class _Rounding:
    """One run of `quantize_model`."""

    def __init__(
        self, opened: OpenedModel, recipe: Recipe, options: RuntimeOptions, progress: Progress | None
    ) -> None:
        self._opened, self._recipe, self._progress = opened, recipe, progress
        self._checkpoint = opened.checkpoint
        path = str(opened.source.path)
        plugin = default_registry().create(default_registry().choose(opened.raw, path, None).name)
        config = plugin.config_class(model_path=path, model_name=opened.source.name, device="cpu")
        if not ops.can_pack(recipe.quantization.kind):
            raise ResourceError("quantising needs the native kernels: see inference-pio doctor")
        self._ready: Prepared = prepare_model(plugin, config, options, None, progress, opened)
        self._plan = _weight_plan(self._ready)
        self._kinds = kinds_of(
            self._ready.model, self._checkpoint, self._plan, recipe.quantization, again=recipe.again
        )
        if not self._kinds:
            raise UsageError(
                f"{opened.source.name} has no weight that {recipe.bits} bits would make smaller; --again rounds "
                "blocks once more"
            )
        self._targets = seen_targets(self._ready.model, self._plan, self._kinds)
        self._tensors = as_blocks(self._checkpoint, self._kinds)
        self._total = sum(self._checkpoint.tensors[name].nbytes for name in self._kinds)
        self._rows_left = {name: self._checkpoint.tensors[name].shape[0] for name in self._kinds}
        self._rounded_bytes = self._tokens = self._compensated = 0

    def windows(self, text: str) -> Tensor | None:
        """The calibration text as token ids [windows, tokens]; too large ones are refused before anything is loaded.
        None where the method wants no text, or there is no weight that one says anything about.
        """
        if self._recipe.method == "rtn" or not self._targets:
            return None
        windows = calibration_windows(self._ready, text, self._recipe.tokens)
        self._ready.plan.check(self._opened.source.name)
        _require_memory(self._ready, windows, list(self._targets))
        self._tokens = windows.numel()
        return windows

    def write(self, out: Path, windows: Tensor | None) -> None:
        source, facts = self._checkpoint, self._facts()
        if isinstance(source, GGUFFile):
            layout = gguf_layout(source, self._tensors, facts)
        else:
            layout = safetensors_layout(self._tensors, facts)
        with drafted(out, layout.size) as draft:
            place = draft
            if not isinstance(source, GGUFFile):
                draft.mkdir()
                copy_beside(self._opened.source.path, draft)
                place = draft / SINGLE
            with TensorsOut(place, layout) as file:
                if windows is not None:
                    self._compensate(file, windows)
                self._compensated = sum(not left for left in self._rows_left.values())
                self._copy_rest(file)

    def written(self, out: Path, seconds: float) -> Written:
        source = sum(info.nbytes for info in self._checkpoint.tensors.values())
        return Written(
            out,
            self._recipe,
            self._compensated,
            len(self._kinds) - self._compensated,
            len(self._tensors) - len(self._kinds),
            self._tokens,
            source,
            sum(info.nbytes for info in self._tensors.values()),
            seconds,
        )

    def _facts(self) -> dict[str, int | str]:
        """What the file says about how it was made."""
        facts: dict[str, int | str] = {
            "quantize.method": self._recipe.method,
            "quantize.group_size": self._recipe.group_size,
            "quantize.tokens": self._tokens,
        }
        if isinstance(self._checkpoint, GGUFFile):
            kind = self._recipe.quantization.kind
            facts |= {"general.file_type": _FILE_TYPES[kind], "general.quantization_version": 2}
        return facts

    def _compensate(self, file: TensorsOut, windows: Tensor) -> None:
        """The model, loaded as for an answer, computes the text; what it multiplies with becomes what is written."""
        model = load_model(self._ready, model_store(None))
        memory = ops.Slab()

        def visit(name: str, module: Linear, how: Compensation) -> None:
            pieces = [self._round(piece, how, file) for piece in self._targets[name].pieces]
            module.take_quantized(pieces, memory)

        visit_linears(model, windows, self._targets, visit)

    def _round(self, piece: Piece, how: Compensation, file: TensorsOut) -> ops.Blocks:
        """A piece of a weight as the model takes it, written where it becomes other blocks."""
        source, info = piece.source, self._checkpoint.tensors[piece.source]
        first, count = piece.rows or (0, info.shape[0])
        if (kind := self._kinds.get(source)) is None:
            blocks = self._ready.packing.read(self._checkpoint, source, info.dtype, (first, count))
        else:
            values = self._checkpoint.read(source, torch.float32, (first, count))
            data = compensated_rows(values, how, kind, self._recipe.group_size)
            file.write(source, data, first * data.shape[1])
            self._rows_left[source] -= count
            self._advance(info.nbytes * count // info.shape[0])
            blocks = ops.Blocks(kind, data, info.shape[1])
        heads = self._plan.heads.get(source)
        return replace(blocks, data=unpermuted(blocks.data, heads)) if heads else blocks

    def _copy_rest(self, file: TensorsOut) -> None:
        """What no text said anything about: rounded to nearest, or as it is."""
        for name, info in self._checkpoint.tensors.items():
            left = self._rows_left.get(name)
            if left == 0:
                continue
            skipped = 0
            for part in parts_of(info, _PART_BYTES):
                data = self._part(name, part, rounded=left is not None)
                file.write(name, data, skipped)
                skipped += data.nbytes
            if left is not None:
                self._advance(info.nbytes)

    def _part(self, name: str, part: tuple[int, int], *, rounded: bool) -> Tensor:
        source = self._checkpoint
        if rounded:
            values = source.read(name, torch.float32, part).flatten(0, -2)
            return quantize_rows(values, self._kinds[name], self._recipe.group_size)
        if source.tensors[name].dtype in DECODERS:
            assert isinstance(source, HoldsBlocks)
            return source.read_blocks(name, part)
        return source.read(name, None, part)

    def _advance(self, nbytes: int) -> None:
        self._rounded_bytes = min(self._total, self._rounded_bytes + nbytes)
        if self._progress is not None:
            self._progress(self._rounded_bytes, self._total, "rounding weights")


def _weight_plan(ready: Prepared) -> WeightPlan:
    parameters = ready.model.named_parameters(remove_duplicate=False)
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters}
    return audit(shapes, ready.files.checkpoint, ready.weight_map)


def _require_memory(ready: Prepared, windows: Tensor, modules: Collection[str]) -> None:
    """Raise `ResourceError` with the arithmetic where the text's activations do not fit beside the model."""
    count, length = windows.shape
    tokens = windows.numel()
    maps = [ready.model.get_submodule(name) for name in modules]
    widths = [(module.in_features, module.out_features) for module in maps if isinstance(module, Linear)]
    itemsize = torch.float32.itemsize
    # Of the widest map its input and output, and what stands beside them in the layer: residual, queries, a copy.
    activations = 3 * itemsize * tokens * max(i + o for i, o in widths)
    activations += scratch_of(ready.model, ready.dtype.itemsize, tokens, count, length)
    specs = ready.serving.cache_specs
    caches = sum(spec.bytes_per_token() * tokens + spec.bytes_per_sequence() * count for spec in specs)
    matrices = max(itemsize * (5 * i * i + 4 * i * o) for i, o in widths)
    needed, free = ready.plan.weights + activations + caches + matrices, available_bytes()
    if needed > free:
        raise ResourceError(
            f"{ready.config.model_name} does not fit: weights {ready.plan.weights / 1e9:.2f} + {tokens} tokens "
            f"{(activations + caches) / 1e9:.2f} + the largest map's matrices {matrices / 1e9:.2f} = "
            f"{needed / 1e9:.2f} GB > {free / 1e9:.2f} GB free memory; use fewer --tokens, or --method rtn"
        )
