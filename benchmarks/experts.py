"""A mixture of experts of Qwen3-Coder-30B-A3B's shape, random weights of 4 bits, decoding beside the memory's roofline.

    PYTHONPATH=benchmarks python benchmarks/experts.py [--layers 48] [--tokens 32] [--sequences 1] [--file PATH]
        [--experts auto|memory|disk]

The file is written first (17 GB for all 48 layers, and as much memory) unless it is there. A token reads the weights
that it meets: attention, router and head of the model, and 8 of 128 experts in each layer. What these bytes take at the
rate at which this machine reads memory is the least time; the share of it in the time measured is what is reported.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray

from inference_pio import LLM, SamplingParams
from inference_pio.layers import Experts, Linear
from inference_pio.loader.ggml_types import TYPES_BY_NAME
from inference_pio.metrics import rates

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, VOCABULARY = 2048, 32, 4, 128, 151_936
EXPERTS, PER_TOKEN, INNER = 128, 8, 768
_ROUNDS = 3
_PROMPT = 16


@dataclass(frozen=True)
class Tensor:
    """`kind` as in the file; rows last but one, columns last."""

    name: str
    shape: tuple[int, ...]
    kind: str


def tensors(layers: int) -> Iterator[Tensor]:
    """As llama.cpp's mix of 4 bits has them: the head in 6, norms and routers in floats."""
    yield Tensor("token_embd.weight", (VOCABULARY, HIDDEN), "Q4_K")
    yield Tensor("output_norm.weight", (HIDDEN,), "F32")
    yield Tensor("output.weight", (VOCABULARY, HIDDEN), "Q6_K")
    for layer in range(layers):
        for name, shape in (
            ("attn_q", (HEADS * HEAD_DIM, HIDDEN)),
            ("attn_k", (KV_HEADS * HEAD_DIM, HIDDEN)),
            ("attn_v", (KV_HEADS * HEAD_DIM, HIDDEN)),
            ("attn_output", (HIDDEN, HEADS * HEAD_DIM)),
            ("ffn_gate_exps", (EXPERTS, INNER, HIDDEN)),
            ("ffn_up_exps", (EXPERTS, INNER, HIDDEN)),
            ("ffn_down_exps", (EXPERTS, HIDDEN, INNER)),
        ):
            yield Tensor(f"blk.{layer}.{name}.weight", shape, "Q4_K")
        for name, shape in (
            ("attn_norm", (HIDDEN,)),
            ("ffn_norm", (HIDDEN,)),
            ("attn_q_norm", (HEAD_DIM,)),
            ("attn_k_norm", (HEAD_DIM,)),
            ("ffn_gate_inp", (EXPERTS, HIDDEN)),
        ):
            yield Tensor(f"blk.{layer}.{name}.weight", shape, "F32")


def write_model(path: Path, layers: int) -> None:
    """One tensor is in memory at a time."""
    writer = gguf.GGUFWriter(path, "qwen3moe")
    writer.add_context_length(4096)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(5472)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_rope_freq_base(10_000_000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(VOCABULARY)
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(PER_TOKEN)
    writer.add_expert_feed_forward_length(INNER)
    listed = list(tensors(layers))
    for tensor in listed:
        kind = TYPES_BY_NAME[tensor.kind]
        raw = gguf.GGMLQuantizationType[tensor.kind]
        if tensor.kind == "F32":
            shape, dtype = tensor.shape, np.dtype(np.float32)
        else:
            shape, dtype = (*tensor.shape[:-1], kind.nbytes(tensor.shape[-1])), np.dtype(np.uint8)
        writer.add_tensor_info(tensor.name, shape, dtype, kind.nbytes(prod(tensor.shape)), raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    rng = np.random.default_rng(0)
    for tensor in listed:
        writer.write_tensor_data(_values(tensor, rng))
    writer.close()


def _values(tensor: Tensor, rng: np.random.Generator) -> NDArray[Any]:
    if len(tensor.shape) == 1:
        return np.ones(tensor.shape, np.float32)
    size = tensor.shape[-1] ** -0.5
    if tensor.kind == "F32":
        return rng.normal(0, size, tensor.shape).astype(np.float32)
    kind = TYPES_BY_NAME[tensor.kind]
    blocks = (
        np.frombuffer(rng.bytes(kind.nbytes(prod(tensor.shape))), np.uint8)
        .reshape(-1, kind.block_bytes)
        .copy()
    )
    if tensor.kind == "Q4_K":  # scales of 0 … 63 times numbers of 0 … 15, less minima of 0 … 63
        blocks[:, :2] = np.frombuffer(np.float16(size / 200).tobytes(), np.uint8)
        blocks[:, 2:4] = np.frombuffer(np.float16(7.5 * size / 200).tobytes(), np.uint8)
    else:  # Q6_K: scales of -128 … 127 times numbers of -32 … 31
        blocks[:, 208:] = np.frombuffer(np.float16(size / 1400).tobytes(), np.uint8)
    return blocks.reshape(*tensor.shape[:-1], -1)


def active_bytes(model: torch.nn.Module) -> int:
    """What one token reads of the weights as they lie in memory: of experts its share, of the embedding nothing."""
    total = sum(parameter.nbytes for parameter in model.parameters())
    for module in model.modules():
        if isinstance(module, Experts):
            total += sum(stack.nbytes for stack in module.stacks.values()) * PER_TOKEN // EXPERTS
        elif isinstance(module, Linear) and module.packed is not None:
            total += module.packed.nbytes
    return total


def seconds_per_step(llm: LLM, tokens: int, sequences: int) -> float:
    """Out of the fastest of a few rounds with the tokens, and the fastest without: a bound is not a median."""
    prompts = [
        {"prompt_token_ids": [1 + (97 * s + 31 * i) % 9999 for i in range(_PROMPT)]} for s in range(sequences)
    ]
    fastest = {1: float("inf"), 1 + tokens: float("inf")}
    for _ in range(_ROUNDS):
        for count in fastest:
            params = SamplingParams(temperature=0.0, max_tokens=count, ignore_eos=True)
            start = time.perf_counter()
            llm.generate(prompts, params)
            fastest[count] = min(fastest[count], time.perf_counter() - start)
    return (fastest[1 + tokens] - fastest[1]) / tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--layers", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--sequences", type=int, default=1)
    parser.add_argument("--file", type=Path, default=Path("build/experts.gguf"))
    parser.add_argument(
        "--experts", choices=("auto", "memory", "disk"), default="auto", help="where they lie"
    )
    options = parser.parse_args()
    if not options.file.exists():
        options.file.parent.mkdir(parents=True, exist_ok=True)
        partial = options.file.with_suffix(".part")
        write_model(partial, options.layers)
        partial.rename(options.file)
    before = rates.measure(torch.get_num_threads())
    start = time.perf_counter()
    sizes = {"kv_cache_memory_gb": 0.2, "max_model_len": 1024}
    with LLM(str(options.file), skip_tokenizer_init=True, experts=options.experts, **sizes) as llm:
        loaded = time.perf_counter() - start
        seconds = seconds_per_step(llm, options.tokens, options.sequences)
        read = active_bytes(llm.plugin.load_model())
        kept = llm.plugin.get_memory_stats()["weights_bytes"]
    after = rates.measure(torch.get_num_threads())
    rate = max(before.read_bytes, after.read_bytes)
    print(before)
    print(
        f"{kept / 1e9:.1f} GB of weights, loaded in {loaded:.0f} s; a token reads {read / 1e6:.0f} MB of them"
    )
    print(
        f"{options.sequences / seconds:.2f} tokens/s, {seconds * 1e3:.1f} ms a step of {options.sequences} sequences"
    )
    if options.sequences == 1:
        print(
            f"{read / seconds / 1e9:.1f} GB/s: {100 * read / seconds / rate:.0f} % of {rate / 1e9:.1f} GB/s"
        )


if __name__ == "__main__":
    main()
