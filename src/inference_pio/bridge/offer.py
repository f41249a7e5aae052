"""Whether Transformers is here and has the architecture that a config.json names. Nothing of a model is imported."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from inference_pio.errors import PluginError
from inference_pio.imports import import_object

INSTALL = "pip install 'inference-pio[transformers]'"
_OLDEST = 5


def installed() -> str | None:
    """The version of Transformers, None where it is not installed."""
    return version("transformers") if find_spec("transformers") else None


def refusal(raw: Mapping[str, Any]) -> str | None:
    """None where the bridge may try this config.json; else why not, and what would help."""
    found = installed()
    if found is None:
        return f"{INSTALL} lets Transformers' own modules run many others, more slowly"
    if int(found.partition(".")[0]) < _OLDEST:
        return f"the bridge to Transformers needs release {_OLDEST} or later, {found} is installed: {INSTALL}"
    try:
        class_of(raw)
    except PluginError as error:
        return str(error)
    return None


def class_of(raw: Mapping[str, Any]) -> tuple[str, str]:
    """(model_type, name of the class) of the causal language model in Transformers that a config.json names.

    Only classes of Transformers itself: `auto_map`, which names code beside the weights, is never followed.

    Raises:
        PluginError: there is none, and the message says what was looked for; or Transformers does not import.
    """
    names = import_object("transformers.models.auto.modeling_auto:MODEL_FOR_CAUSAL_LM_MAPPING_NAMES")
    stated = raw.get("architectures") or []
    asked = [str(name) for name in stated] if isinstance(stated, list) else [str(stated)]
    model_type = raw.get("model_type")
    if model_type is None:
        model_type = next((kind for kind, name in names.items() if name in asked), None)
    name = names.get(model_type) if isinstance(model_type, str) else None
    if name is None or not isinstance(model_type, str):
        called = f"model_type {model_type!r:.80}" if model_type is not None else ", ".join(asked) or "no name"
        raise PluginError(f"Transformers {installed()} has no causal language model for {called}")
    if asked and name not in asked:
        raise PluginError(
            f"of {model_type!r} Transformers {installed()} runs {name} here, not {', '.join(asked)}"
        )
    return model_type, name
