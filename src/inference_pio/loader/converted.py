"""What llama.cpp's converter does to the values of some tensors, undone (convert_hf_to_gguf.py)."""

from __future__ import annotations

from torch import Tensor

from inference_pio.loader.weight_plan import WeightPlan


def changes_values(plan: WeightPlan, source: str) -> bool:
    """Whether numbers are to be computed again, which is done before anything is rounded."""
    return source in plan.added or source in plan.negated_exp


def restored(tensor: Tensor, plan: WeightPlan, source: str) -> Tensor:
    """A tensor of the file as the checkpoint had it."""
    if (added := plan.added.get(source)) is not None:
        tensor = tensor - added
    if source in plan.negated_exp:
        tensor = (-tensor).log()
    if source in plan.squeezed:
        tensor = tensor.unsqueeze(1)
    if source in plan.transposed:
        tensor = tensor.transpose(1, 2)
    heads = plan.heads.get(source)
    return unpermuted(tensor, heads) if heads else tensor


def unpermuted(tensor: Tensor, heads: int) -> Tensor:
    """Undo llama.cpp's reordering of rows, [rows, ...]: (heads, half, 2) back to (heads, 2, half).

    Its rotary kernel turns neighbouring rows; LlamaModel.permute interleaves the two halves.
    """
    half = tensor.shape[0] // heads // 2
    return tensor.view(heads, half, 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)
