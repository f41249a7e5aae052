"""The data objects in which a plugin states its facts. Core interprets them; none of them has behaviour of its own.

Names of tensors are patterns: dotted names in which a component `*` stands for one number (a layer or expert index),
the same number on both sides of a mapping.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

CutPoint = Literal["branch", "prompt", "answer"]
_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class GGUFNames:
    """How a GGUF file of this architecture relates to the names that safetensors checkpoints use.

    rename     GGUF name -> checkpoint name
    unpermute  checkpoint name -> number of heads whose rows llama.cpp's converter interleaved for its rotary kernel
               (convert_hf_to_gguf.py, LlamaModel.permute); loading puts them back into two halves
    subtract   checkpoint name -> what llama.cpp's converter added to every value (convert_hf_to_gguf.py,
               Gemma3Model.norm_shift); loading takes it away again, in float32
    negated_exp  checkpoint names of which the file has -exp(x) (convert_hf_to_gguf.py, Qwen3NextModel.modify_tensors);
               loading takes the logarithm, in float32
    squeezed   checkpoint names whose dimension 1, of one entry, the file leaves out (the same place)
    transposed  checkpoint names of stacks [entries, rows, columns] of which the file has each matrix turned over
               (convert_hf_to_gguf.py, DeepseekV2Model.modify_tensors); they become dense, whatever the file's blocks
    drop       GGUF tensors that carry nothing the model needs (precomputed rotary factors, …)
    """

    rename: Mapping[str, str]
    unpermute: Mapping[str, int] = field(default_factory=lambda: _NONE)
    subtract: Mapping[str, float] = field(default_factory=lambda: _NONE)
    negated_exp: tuple[str, ...] = ()
    squeezed: tuple[str, ...] = ()
    transposed: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


@dataclass(frozen=True)
class WeightMap:
    """Checkpoint names to parameters, applied in this order; strict both ways (`inference_pio.loader.weights`).

    rename  checkpoint name -> name used below
    unstack name -> name with one `*` more, its last: entry n along dimension 0 is the tensor with number n (experts)
    split   name -> parts it is cut into along dimension 0, in equal pieces
    merge   parameter -> names concatenated along dimension 0
    stack   parameter -> name with `*`: all numbers 0…n-1 stacked along a new dimension 0 (experts)
    tie     parameter -> parameter that it shares storage with; a checkpoint may hold it as well, if equal
    drop    names that carry nothing
    """

    rename: Mapping[str, str] = field(default_factory=lambda: _NONE)
    unstack: Mapping[str, str] = field(default_factory=lambda: _NONE)
    split: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _NONE)
    merge: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _NONE)
    stack: Mapping[str, str] = field(default_factory=lambda: _NONE)
    tie: Mapping[str, str] = field(default_factory=lambda: _NONE)
    drop: tuple[str, ...] = ()
    gguf: GGUFNames | None = None


@dataclass(frozen=True)
class ShardRule:
    """How one checkpoint tensor is cut over tensor-parallel ranks.

    kind   "column": rows of the weight (its outputs) are divided; "row": its columns (inputs) are divided, and the
           results are summed; "vocab": rows divided by vocabulary; "replicate": every rank holds all of it; "unit":
           the tensor is one of the units that a "column" tensor would consist of, held whole where that unit is held
    units  indivisible pieces along the divided dimension (heads, say). With more ranks than units, and ranks a
           multiple of units, each unit is held by ranks / units ranks.
    parts  lengths of consecutive parts of the divided dimension, each of which is divided into `units` on its own:
           channels of queries, keys and values in one tensor, say. Empty: it is one part
    unit   which one it is, where `kind` is "unit"
    """

    kind: Literal["column", "row", "vocab", "replicate", "unit"]
    units: int = 1
    parts: tuple[int, ...] = ()
    unit: int = 0


@dataclass(frozen=True)
class ShardPlan:
    """Checkpoint name (after `WeightMap.rename`) -> rule, for every tensor; and the sizes that are legal."""

    rules: Mapping[str, ShardRule]
    legal_sizes: tuple[int, ...]


@dataclass(frozen=True)
class PrefixPolicy:
    """What may be reused between requests.

    seed          strings that enter every block's hash: whatever changes keys and values for equal token ids
    reuse         "blocks": any full block; "snapshots": blocks up to where a copy of the state was kept. A state cannot
                  be cut, so where a layer keeps any it must be snapshots
    snapshots_at  where copies are kept, at the last block's border in front of each: "prompt", its end; "branch", where
                  a prompt leaves what others have computed; "answer", its end. A chat format that does not repeat
                  answers as they were need not keep the last
    """

    seed: tuple[str, ...]
    reuse: Literal["blocks", "snapshots"] = "blocks"
    snapshots_at: tuple[CutPoint, ...] = ("branch", "prompt", "answer")


CallSyntax = Literal["hermes_json", "qwen3_coder_xml", "glm_xml", "llama3_json", "mistral_json"]
"""How a model writes a call of a tool (`inference_pio.text.calls` reads them):

hermes_json      <tool_call>{"name": …, "arguments": {…}}</tool_call>
qwen3_coder_xml  <tool_call><function=NAME><parameter=KEY>value</parameter></function></tool_call>
glm_xml          <tool_call>NAME<arg_key>KEY</arg_key><arg_value>value</arg_value></tool_call>
llama3_json      {"name": …, "parameters": {…}} and nothing else, perhaps behind <|python_tag|>
mistral_json     [TOOL_CALLS][{"name": …, "arguments": {…}, "id": …}], or [TOOL_CALLS]NAME[ARGS]{…}
"""


@dataclass(frozen=True)
class ReasoningFormat:
    """How an answer marks what the model thought before it.

    start, end  what stands around the thoughts; the chat template may have written `start` already
    dropped     the template leaves the thoughts of answers before the last question out, so that the next turn's
                prompt equals this one's up to where the answer begins; otherwise it begins with all of it
    kept_with   template options under which such thoughts stay, where there are any
    """

    start: str = "<think>"
    end: str = "</think>"
    dropped: bool = True
    kept_with: Mapping[str, Any] = field(default_factory=lambda: _NONE)


@dataclass(frozen=True)
class ChatFormat:
    """How this architecture's chat models write. A checkpoint's template decides which of it is at work: markers that
    the template does not know are not looked for.

    end_of_turn         tokens that end an answer, if the vocabulary has them, beside the checkpoint's own list
    template_variables  values for the chat template, so that equal messages give equal text on any day
    template_options    name -> type of what a caller may set for the template, beside what the template itself reads
    reasoning           how thoughts are marked; None: these models do not think
    tool_calls          syntaxes of calls; the first that the template writes counts
    system_role         False: the templates write a system message into a turn of the user's
    """

    end_of_turn: tuple[str, ...] = ()
    template_variables: Mapping[str, Any] = field(default_factory=lambda: _NONE)
    template_options: Mapping[str, type] = field(default_factory=lambda: _NONE)
    reasoning: ReasoningFormat | None = None
    tool_calls: tuple[CallSyntax, ...] = ()
    system_role: bool = True


@dataclass(frozen=True)
class TechniqueFact:
    """Whether one of the standard's techniques is at work in this model, and why.

    status  "active", "dormant" (could act, is switched off or has nothing to do) or "not applicable"
    exact   whether results stay the same up to rounding
    """

    name: str
    category: Literal["attention", "memory", "hardware"]
    status: Literal["active", "dormant", "not applicable"]
    exact: bool
    reason: str
