"""What a plugin brings to the contract tests: `<plugin package>.tests.case:CASE`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol

from torch import Tensor

Raw = Mapping[str, Any]
CheckpointKind = Literal["safetensors", "sharded", "gguf"]
_NONE: Mapping[str, Any] = MappingProxyType({})


class ReferenceModel(Protocol):
    """A model by somebody else (Transformers, say) with random weights in float32.

    Where an attribute holds a torch module, its class must be of an architecture that the plugin claims.
    """

    def logits(self, token_ids: Sequence[int]) -> Tensor:
        """[tokens, vocab_size] of one sequence in one pass."""

    def save(self, directory: Path, kind: CheckpointKind) -> Path:
        """Write the model's checkpoint and return what a user would load: the directory, or the GGUF file in it.

        "sharded" has an index over several files.
        """


class DraftingReference(ReferenceModel, Protocol):
    """One with a layer that predicts further tokens, which its checkpoints hold too."""

    def draft_logits(self, token_ids: Sequence[int], guesses: Sequence[int] = ()) -> Tensor:
        """[tokens and guesses, vocab_size]: what the layer predicts behind each of them.

        It takes each token together with the model's hidden state of the one before (zeros before the first), and each
        guess with what it made of the one before itself.
        """


@dataclass(frozen=True)
class HeaderFacts:
    """Names and shapes of a checkpoint that exists, and what it says about its architecture.

    raw      config.json, or GGUF metadata without `gguf.tensor_names`
    tensors  a callable, since a reference class may have to be imported to tell
    """

    raw: Raw
    tensors: Callable[[], Mapping[str, tuple[int, ...]]]
    format: Literal["safetensors", "gguf"] = "safetensors"


@dataclass(frozen=True)
class PluginCase:
    """All that one plugin adds to the suite. Everything else is the same for every plugin.

    tiny              name -> config.json of a model of a few layers; between them every branch of the architecture.
                      The first one stands for the architecture where one is enough
    reference         config.json -> reference model; equal input gives equal weights
    gguf              names of `tiny` that GGUF can carry
    claims            files of the collected configurations that this plugin runs
    ignored           config.json keys whose value makes no difference; of an object in it "text_config.key"
    rope_keys         where config.json may say the kind of rotary positions; "text_config.key" likewise
    checkpoints       real checkpoints by name
    shards            name of `tiny` -> numbers of ranks to simulate
    refused_ranks     name of `tiny` -> numbers of ranks that must be refused
    not_interchangeable  pairs of configuration fields under which keys and values must never be shared
    chat              chat templates of this architecture's models by name
    render_chat       somebody else's renderer: (template, messages, variables) -> text
    drafting          config.json -> reference model with a layer that drafts, where the architecture has one
    """

    name: str
    tiny: Mapping[str, Raw]
    reference: Callable[[Raw], ReferenceModel]
    claims: frozenset[str]
    ignored: frozenset[str]
    checkpoints: Mapping[str, HeaderFacts]
    shards: Mapping[str, tuple[int, ...]]
    refused_ranks: Mapping[str, tuple[int, ...]]
    not_interchangeable: tuple[tuple[Mapping[str, Any], Mapping[str, Any]], ...]
    render_chat: Callable[[str, Sequence[Mapping[str, str]], Mapping[str, Any]], str]
    gguf: frozenset[str] = frozenset()
    rope_keys: tuple[str, ...] = ()
    chat: Mapping[str, str] = field(default_factory=lambda: _NONE)
    drafting: Callable[[Raw], DraftingReference] | None = None

    @property
    def typical(self) -> str:
        """The tiny model that stands for the architecture."""
        return next(iter(self.tiny))


def sections(raw: Raw) -> dict[str, Raw]:
    """Where a config.json's keys lie: "" for the file itself, and "text_config." and the like for what it nests."""
    nested = {
        f"{key}.": value
        for key, value in raw.items()
        if key.endswith("_config") and isinstance(value, Mapping)
    }
    return {"": raw, **nested}


def vocab_size(raw: Raw) -> int:
    """Tokens of the model: config.json says it, or its `text_config` where the model reads more than text."""
    size: int = raw.get("text_config", raw)["vocab_size"]
    return size
