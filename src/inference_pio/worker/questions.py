"""What a parent may ask a worker about its model, each with one answer (`answers.py`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from inference_pio.engine.checks import check_length
from inference_pio.runtime.start import Started
from inference_pio.security import ResourceLimits
from inference_pio.worker.answers import Encoded, Written
from inference_pio.worker.requests import prompt_of

Question = Callable[[Started, Mapping[str, Any]], Any]


def _tokenize(started: Started, given: Mapping[str, Any]) -> Any:
    return started.runtime.tokenize(given["text"], add_special_tokens=given["add_special_tokens"])


def _detokenize(started: Started, given: Mapping[str, Any]) -> Any:
    return started.runtime.detokenize(given["token_ids"], skip_special_tokens=given["skip_special_tokens"])


def _write(started: Started, given: Mapping[str, Any]) -> Any:
    """A conversation up to its chat template, which is the parent's to have run: this process cannot be interrupted."""
    written = started.runtime.text.write(
        given["messages"], given["add_generation_prompt"], given["tools"], given["options"]
    )
    path = str(started.runtime.prepared.opened.source.path)
    return Written(written.source, written.values, path, [image.where for image in written.images])


def _encode(started: Started, given: Mapping[str, Any]) -> Any:
    """Its placeholders filled, where it has images."""
    encoded = started.runtime.encode(prompt_of(given["written"], given["formatted"], given.get("images", ())))
    check_length(len(encoded.token_ids), started.runtime.max_model_len)  # more would not fit a message either
    return Encoded(encoded.text, encoded.token_ids)


def _techniques(started: Started, _: Mapping[str, Any]) -> Any:
    return started.plugin.get_optimization_report()


def _fit(started: Started, given: Mapping[str, Any]) -> Any:
    return started.runtime.try_to_fit(ResourceLimits(**given))


QUESTIONS: Mapping[str, Question] = {
    "tokenize": _tokenize,
    "detokenize": _detokenize,
    "write": _write,
    "encode": _encode,
    "memory": lambda started, _: started.runtime.memory_stats(),
    "compute": lambda started, _: started.runtime.compute_stats(),
    "disk": lambda started, _: started.runtime.disk_stats(),
    "performance": lambda started, _: asdict(started.runtime.performance_metrics()),
    "techniques": _techniques,
    "optimize": lambda started, _: started.runtime.optimize(),
    "fit": _fit,
}
