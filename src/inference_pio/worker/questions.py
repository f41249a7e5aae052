"""What a parent may ask a worker about its model, each with one answer of plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from inference_pio.plugin.runtime import FormattedPrompt
from inference_pio.runtime.start import Started

Question = Callable[[Started, Mapping[str, Any]], Any]


def _tokenize(started: Started, given: Mapping[str, Any]) -> Any:
    return started.runtime.tokenize(given["text"], add_special_tokens=given["add_special_tokens"])


def _detokenize(started: Started, given: Mapping[str, Any]) -> Any:
    return started.runtime.detokenize(given["token_ids"], skip_special_tokens=given["skip_special_tokens"])


def _render(started: Started, given: Mapping[str, Any]) -> Any:
    prompt = started.runtime.render_chat(
        given["messages"],
        add_generation_prompt=given["add_generation_prompt"],
        tools=given["tools"],
        options=given["options"],
    )
    return {"text": str(prompt), "images": len(prompt.images)}


def _encode(started: Started, given: Mapping[str, Any]) -> Any:
    prompt = FormattedPrompt(given["text"]) if given["formatted"] else given["text"]
    encoded = started.runtime.encode(prompt)
    return {"text": encoded.text, "token_ids": encoded.token_ids}


def _techniques(started: Started, _: Mapping[str, Any]) -> Any:
    return started.plugin.get_optimization_report()


QUESTIONS: Mapping[str, Question] = {
    "tokenize": _tokenize,
    "detokenize": _detokenize,
    "render": _render,
    "encode": _encode,
    "memory": lambda started, _: started.runtime.memory_stats(),
    "compute": lambda started, _: started.runtime.compute_stats(),
    "disk": lambda started, _: started.runtime.disk_stats(),
    "performance": lambda started, _: asdict(started.runtime.performance_metrics()),
    "techniques": _techniques,
    "optimize": lambda started, given: started.runtime.optimize(**given),
}
