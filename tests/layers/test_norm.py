"""The residual norm, in one pass and in two, against Transformers' norm of the sum."""

from __future__ import annotations

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from inference_pio.layers import ResidualNorm


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sum_and_its_norm(fused: bool, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x, residual = (torch.randn(5, 48, generator=generator).to(dtype) for _ in range(2))
    weight = torch.randn(48, generator=generator).to(dtype)
    theirs, ours = LlamaRMSNorm(48, eps=1e-5), ResidualNorm(48, 1e-5, fused=fused)
    theirs.weight.data, ours.weight.data = weight, weight
    total = residual + x
    with torch.inference_mode():
        y, summed = ours.add(x, residual.clone())
        torch.testing.assert_close(y, theirs(total), rtol=2 * torch.finfo(dtype).eps, atol=1e-6)
    assert torch.equal(summed, total)
