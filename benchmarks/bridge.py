"""A plugin of ours against the bridge to Transformers' modules: SmolLM2-135M's shape through both, in the same process.

    python benchmarks/bridge.py [--dtype float32|bfloat16] [--rounds 5] [--quick] [--json] [--folder PATH]

Weights are random: what a step costs does not depend on them. Scheduler, cache, attention and sampling are the same on
both sides, so that the ratio is what the plugin's own layers, merged and packed weights and recorded steps are worth.
It is the bar that a plugin of ours has to clear.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file

from inference_pio import LLM, SamplingParams
from inference_pio.benchmarks.environment import environment
from inference_pio.benchmarks.harness import interleave
from inference_pio.benchmarks.samples import Summary, effect

PLUGINS = ("llama", "transformers")
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "vocab_size": 49152,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100_000.0,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True)
class Work:
    """`sequences` prompts of `prompt` tokens, each continued by `answer`; the rate counts prompts or answers."""

    name: str
    sequences: int
    prompt: int
    answer: int

    @property
    def tokens(self) -> int:
        return self.sequences * (self.answer if self.answer > 1 else self.prompt)


WORKS = (
    Work("prefill of 512 tokens", 1, 512, 1),
    Work("decode of one sequence, 16 + 64 tokens", 1, 16, 64),
    Work("16 sequences, 64 + 32 tokens", 16, 64, 32),
)
QUICK = (Work("prefill of 32 tokens", 1, 32, 1), Work("decode of one sequence, 4 + 4 tokens", 1, 4, 4))


def write_model(folder: Path, config: Mapping[str, Any] = CONFIG, dtype: torch.dtype = torch.float32) -> Path:
    """config.json and random weights, under the names that Hugging Face's checkpoints have."""
    generator = torch.Generator().manual_seed(0)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        shapes |= {
            f"{at}input_layernorm.weight": (hidden,),
            f"{at}post_attention_layernorm.weight": (hidden,),
        }
        shapes |= {f"{at}self_attn.{name}_proj.weight": (hidden, hidden) for name in "qo"}
        shapes |= {f"{at}self_attn.{name}_proj.weight": (kv, hidden) for name in "kv"}
        shapes |= {f"{at}mlp.{name}_proj.weight": (inner, hidden) for name in ("gate", "up")}
        shapes[f"{at}mlp.down_proj.weight"] = (hidden, inner)
    tensors = {
        name: torch.randn(shape, generator=generator).mul_(shape[-1] ** -0.5)
        if len(shape) > 1
        else torch.ones(shape)
        for name, shape in shapes.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@contextmanager
def both(folder: Path, dtype: str) -> Iterator[dict[str, LLM]]:
    """The model loaded by each."""
    options: dict[str, Any] = {
        "dtype": dtype,
        "skip_tokenizer_init": True,
        "enable_prefix_caching": False,
        "speculation": 0,
        "kv_cache_memory_gb": 0.2,
        "max_model_len": 1024,
    }
    with ExitStack() as stack:
        yield {name: stack.enter_context(LLM(str(folder), plugin=name, **options)) for name in PLUGINS}


def compare(models: Mapping[str, LLM], work: Work, rounds: int) -> dict[str, Any]:
    """Tokens per second of each, and how many times faster ours is, round by round."""
    vocabulary = next(iter(models.values())).plugin.config.vocab_size
    params = SamplingParams(temperature=0.0, max_tokens=work.answer, ignore_eos=True)

    def run(llm: LLM, number: int) -> None:
        generator = torch.Generator().manual_seed(1000 + number)
        ids = torch.randint(vocabulary, (work.sequences, work.prompt), generator=generator).tolist()
        llm.generate([{"prompt_token_ids": row} for row in ids], params)

    timed = interleave(
        {name: (lambda number, llm=llm: run(llm, number)) for name, llm in models.items()}, rounds=rounds
    )
    seconds = {name: [one.seconds for one in runs] for name, runs in timed.items()}
    ours, theirs = (seconds[name] for name in PLUGINS)
    rates = {name: Summary.of([work.tokens / one for one in seconds[name]]).median for name in PLUGINS}
    ratio = effect(ours, theirs)
    return {
        "work": work.name,
        "tokens_per_second": rates,
        "ratio": ratio.ratio.median,
        "low": ratio.ratio.interval.low,
        "high": ratio.ratio.interval.high,
        "verdict": ratio.verdict,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--folder", type=Path, help="where the model is written, and stays (default: nowhere)"
    )
    options = parser.parse_args()
    with TemporaryDirectory() as made:
        folder = options.folder or Path(made)
        if not (folder / "config.json").is_file():
            write_model(folder, dtype=getattr(torch, options.dtype))
        with both(folder, options.dtype) as models:
            works = QUICK if options.quick else WORKS
            rows = [compare(models, work, 1 if options.quick else options.rounds) for work in works]
    if options.json:
        print(json.dumps({"environment": environment(), "dtype": options.dtype, "rows": rows}, indent=2))
        return
    print(", ".join(f"{key} {value}" for key, value in environment().items()), options.dtype, sep=", ")
    for row in rows:
        ours, theirs = (row["tokens_per_second"][name] for name in PLUGINS)
        print(
            f"{row['work']:42} {PLUGINS[0]} {ours:9.1f} tok/s   {PLUGINS[1]} {theirs:9.1f} tok/s   "
            f"{row['ratio']:.2f} × ({row['low']:.2f} – {row['high']:.2f}) {row['verdict']}"
        )


if __name__ == "__main__":
    main()
