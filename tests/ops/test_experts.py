"""Experts and their router: against Transformers' own, against float64, and against themselves in other company."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.models.qwen3_moe.configuration_qwen3_moe import Qwen3MoeConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts, Qwen3MoeTopKRouter

from inference_pio import ops
from inference_pio.ops import native
from support.quant_blocks import KINDS, TYPES_BY_NAME, random_blocks

EXPERTS, HIDDEN, INNER, CHOSEN = 6, 32, 24, 3
some = settings(max_examples=5, deadline=None)


def choices(tokens: int, experts: int, per_token: int, seed: int) -> tuple[Tensor, Tensor]:
    """Which experts, in no order, and their weights."""
    rng = torch.Generator().manual_seed(seed)
    weights, chosen = torch.rand(tokens, experts, generator=rng).topk(per_token, sorted=False)
    return chosen, weights


def case(tokens: int) -> tuple[Tensor, ...]:
    rng = torch.Generator().manual_seed(tokens)
    gate_up = torch.randn(EXPERTS, 2 * INNER, HIDDEN, generator=rng)
    down = torch.randn(EXPERTS, HIDDEN, INNER, generator=rng)
    x = torch.randn(tokens, HIDDEN, generator=rng)
    return x, gate_up, down, *choices(tokens, EXPERTS, CHOSEN, tokens)


# Dense weights, in torch ----------------------------------------------------------------------------------------------


def test_experts_are_transformers_experts() -> None:
    x, gate_up, down, chosen, weights = case(17)
    config = Qwen3MoeConfig(
        hidden_size=HIDDEN, moe_intermediate_size=INNER, num_experts=EXPERTS, num_experts_per_tok=CHOSEN
    )
    theirs = Qwen3MoeExperts(config)
    theirs.gate_up_proj.data, theirs.down_proj.data = gate_up, down
    want = theirs(x, chosen, weights).detach()
    torch.testing.assert_close(ops.experts(x, gate_up, down, chosen, weights), want, rtol=1e-5, atol=1e-4)


def test_an_expert_that_nobody_chose_is_not_read() -> None:
    x, gate_up, down, chosen, weights = case(5)
    chosen[:] = torch.tensor([0, 1, 3])
    gate_up[2] = torch.nan
    assert ops.experts(x, gate_up, down, chosen, weights).isfinite().all()


def test_no_token_at_all() -> None:
    """A step that ends within a prompt needs no row of the last layer."""
    x, gate_up, down, chosen, weights = case(5)
    assert ops.experts(x[:0], gate_up, down, chosen[:0], weights[:0]).shape == (0, HIDDEN)


def test_a_token_alone_gives_what_it_gives_in_company() -> None:
    x, gate_up, down, chosen, weights = case(9)
    whole = ops.experts(x, gate_up, down, chosen, weights)
    for t in range(9):
        at = slice(t, t + 1)
        alone = ops.experts(x[at], gate_up, down, chosen[at], weights[at])
        torch.testing.assert_close(alone, whole[at], rtol=1e-5, atol=1e-4)


# The router -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["reference", "portable", "avx2", "avx512", "avx512_bf16"])
def implementation(request: pytest.FixtureRequest) -> Iterator[str]:
    """The reference, then every instruction set that this processor has."""
    if request.param == "reference":
        with ops.use("reference"):
            yield request.param
        return
    if native.MISSING is not None:
        pytest.skip(native.MISSING)
    try:
        yield native.use_isa(request.param)
    except RuntimeError as error:
        pytest.skip(str(error).partition("\n")[0])
    finally:
        native.use_isa("")


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("experts", "per_token"), [(128, 8), (5, 5), (1, 1), (37, 3)])
@pytest.mark.parametrize("hidden", [64, 100])
def test_the_router_is_transformers_router(
    experts: int, per_token: int, normalize: bool, hidden: int
) -> None:
    config = Qwen3MoeConfig(
        hidden_size=hidden, num_experts=experts, num_experts_per_tok=per_token, norm_topk_prob=normalize
    )
    theirs = Qwen3MoeTopKRouter(config)
    theirs.weight.data.normal_(generator=torch.Generator().manual_seed(experts))
    for tokens in (1, 2, 45):
        x = torch.randn(tokens, hidden, generator=torch.Generator().manual_seed(tokens)) / 4
        with torch.inference_mode():
            _, weights, chosen = theirs(x)
            found, shares = ops.top_experts(x, theirs.weight.data, per_token, normalize)
        assert found.dtype == torch.int64
        assert torch.equal(found, chosen)
        torch.testing.assert_close(shares, weights, rtol=2e-5, atol=1e-7)


@pytest.mark.usefixtures("implementation")
def test_equal_experts_are_taken_in_the_order_of_their_numbers() -> None:
    router = torch.zeros(7, 16)
    router[5] = 1.0
    chosen, weights = ops.top_experts(torch.ones(2, 16), router, 4, True)
    assert chosen.tolist() == [[5, 0, 1, 2]] * 2
    torch.testing.assert_close(weights.sum(-1), torch.ones(2))


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_no_numbers_choose_experts_that_exist(value: float) -> None:
    x, router = torch.ones(3, 16), torch.randn(6, 16, generator=torch.Generator().manual_seed(0)).abs()
    x[1, 3] = value
    chosen, weights = ops.top_experts(x, router, 2, True)
    assert chosen[1].tolist() == [0, 1]
    assert weights[1].isnan().all()
    assert weights[[0, 2]].isfinite().all()


@pytest.mark.usefixtures("implementation")
def test_the_router_computes_in_float32_whatever_it_is_given() -> None:
    rng = torch.Generator().manual_seed(0)
    x, router = torch.randn(9, 64, generator=rng).bfloat16(), torch.randn(16, 64, generator=rng).bfloat16()
    got, want = ops.top_experts(x, router, 3, True), ops.top_experts(x.float(), router.float(), 3, True)
    assert all(map(torch.equal, got, want))


@pytest.mark.usefixtures("isa")
def test_a_token_is_routed_alike_in_any_company() -> None:
    rng = torch.Generator().manual_seed(0)
    x, router = torch.randn(41, 72, generator=rng), torch.randn(21, 72, generator=rng)
    whole = ops.top_experts(x, router, 4, True)
    alone = [ops.top_experts(row, router, 4, True) for row in x.split(1)]
    for number, part in enumerate(whole):
        assert torch.equal(part, torch.cat([one[number] for one in alone]))


@pytest.mark.usefixtures("isa")
def test_more_experts_than_there_are() -> None:
    with pytest.raises(RuntimeError, match="cannot go through 3 of 2 experts"):
        ops.top_experts(torch.ones(1, 8), torch.ones(2, 8), 3, True)


# Weights in blocks ----------------------------------------------------------------------------------------------------


def stack_of(experts: int, columns: int, *parts: tuple[str, int], seed: int = 0) -> ops.QuantizedStack:
    stack = ops.QuantizedStack.empty(experts, parts, columns)
    for expert in range(experts):
        for part, (kind, rows) in enumerate(parts):
            blocks = random_blocks(kind, rows, columns, seed + 100 * part + expert)
            stack.pack(expert, part, blocks)
    return stack


def by_linear(
    x: Tensor, gate_up: ops.QuantizedStack, down: ops.QuantizedStack, chosen: Tensor, weights: Tensor
) -> Tensor:
    """Token by token, expert by expert, with the operations of single weights; sums in the order of k."""
    rows = []
    for t, row in enumerate(x.split(1)):
        total = torch.zeros(1, x.shape[1])
        for expert, weight in zip(chosen[t].tolist(), weights[t], strict=True):
            hidden = ops.gated_linear(row, gate_up.of(expert))
            total = total + weight * ops.linear(hidden, down.of(expert))
        rows.append(total)
    return torch.cat(rows)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("kind", KINDS)
@some
@given(
    tokens=st.integers(1, 40),
    experts=st.integers(1, 9),
    rows=st.integers(1, 3),
    count=st.integers(1, 3),
    seed=st.integers(0, 999),
)
def test_experts_are_products_of_single_weights(
    kind: str, tokens: int, experts: int, rows: int, count: int, seed: int
) -> None:
    """Widths that end within a group and a unit of rows; every number of experts per token."""
    block = TYPES_BY_NAME[kind].block_size
    hidden, inner = block * count, block * rows
    gate_up = stack_of(experts, hidden, (kind, inner), (kind, inner), seed=seed)
    down = stack_of(experts, inner, (kind, hidden), seed=seed + 50)
    chosen, weights = choices(tokens, experts, 1 + seed % experts, seed)
    x = torch.randn(tokens, hidden, generator=torch.Generator().manual_seed(seed))
    got = ops.experts(x, gate_up, down, chosen, weights)
    want = by_linear(x, gate_up, down, chosen, weights)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5 * want.abs().max().item())


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize(
    "kinds", [("Q4_K", "Q4_K", "Q6_K"), ("Q4_K", "Q8_0", "Q4_1"), ("Q8_0", "Q8_0", "Q8_0")]
)
@pytest.mark.parametrize("tokens", [1, 2, 9, 70, 600])
def test_the_result_stays_near_the_exact_one(kinds: tuple[str, str, str], tokens: int) -> None:
    """The reference expands the weights and rounds nothing; 600 tokens take each expert in several runs."""
    gate, up, back = kinds
    gate_up = stack_of(4, 256, (gate, 256), (up, 256))
    down = stack_of(4, 256, (back, 256), seed=7)
    chosen, weights = choices(tokens, 4, 2, tokens)
    x = torch.randn(tokens, 256, generator=torch.Generator().manual_seed(tokens))
    got = ops.experts(x, gate_up, down, chosen, weights)
    with ops.use("reference"):
        exact = ops.experts(x, gate_up, down, chosen, weights)
    assert (got - exact).norm() <= 0.05 * exact.norm(), "activations have 8 bits"


@pytest.mark.usefixtures("isa")
def test_a_row_is_the_same_bit_for_bit_in_any_company_and_for_any_number_of_threads() -> None:
    gate_up, down = stack_of(5, 96, ("Q4_0", 32), ("Q4_0", 32)), stack_of(5, 32, ("Q5_0", 96))
    chosen, weights = choices(300, 5, 3, 1)
    x = torch.randn(300, 96, generator=torch.Generator().manual_seed(1))
    whole = ops.experts(x, gate_up, down, chosen, weights)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert torch.equal(ops.experts(x, gate_up, down, chosen, weights), whole)
    finally:
        torch.set_num_threads(threads)
    for at in (slice(0, 1), slice(7, 9), slice(20, 60), slice(299, 300)):
        alone = ops.experts(x[at], gate_up, down, chosen[at], weights[at])
        assert torch.equal(alone, whole[at])


@pytest.mark.usefixtures("isa")
def test_an_expert_in_blocks_that_nobody_chose_is_not_read() -> None:
    gate_up, down = stack_of(4, 64, ("Q8_0", 64), ("Q8_0", 64)), stack_of(4, 64, ("Q8_0", 64))
    for stack in (gate_up, down):
        stack.data[2] = 255  # halves of ones are no numbers
    chosen = torch.tensor([[0, 3], [1, 0], [3, 1]])
    x, weights = torch.randn(3, 64), torch.rand(3, 2)
    assert ops.experts(x, gate_up, down, chosen, weights).isfinite().all()
    chosen[1, 1] = 2
    assert ops.experts(x, gate_up, down, chosen, weights).isnan().any(dim=1).tolist() == [False, True, False]


@pytest.mark.usefixtures("isa")
def test_tokens_that_are_no_numbers_stay_alone() -> None:
    gate_up, down = stack_of(3, 64, ("Q8_0", 32), ("Q8_0", 32)), stack_of(3, 32, ("Q8_0", 64))
    chosen, weights = choices(6, 3, 2, 0)
    x = torch.randn(6, 64, generator=torch.Generator().manual_seed(0))
    want = ops.experts(x, gate_up, down, chosen, weights)
    x[4, 5] = torch.inf
    got = ops.experts(x, gate_up, down, chosen, weights)
    assert got[4].isnan().all()
    assert torch.equal(got[[0, 1, 2, 3, 5]], want[[0, 1, 2, 3, 5]])


@pytest.mark.usefixtures("isa")
def test_what_does_not_fit_is_refused() -> None:
    gate_up, down = stack_of(3, 64, ("Q8_0", 32), ("Q8_0", 32)), stack_of(3, 32, ("Q8_0", 64))
    chosen, weights = choices(2, 3, 2, 0)
    x = torch.ones(2, 64)
    for wrong in (-1, 3):
        bad = chosen.clone()
        bad[1, 0] = wrong
        with pytest.raises(RuntimeError, match=f"chosen has {wrong}, expected 0 to 2"):
            ops.experts(x, gate_up, down, bad, weights)
    with pytest.raises(RuntimeError, match="weights has size 1 in dimension 0, expected 2"):
        ops.experts(x, gate_up, down, chosen, weights[:1])
    with pytest.raises(RuntimeError, match="gate and up are two parts of one size"):
        ops.experts(x, stack_of(3, 64, ("Q8_0", 64)), down, chosen, weights)
    with pytest.raises(RuntimeError, match="down has size 2 in dimension 0, expected 3"):
        ops.experts(x, gate_up, stack_of(2, 32, ("Q8_0", 64)), chosen, weights)
    with pytest.raises(ValueError, match="part 1 is .*Q8_0.*, not Q4_0"):
        gate_up.pack(0, 1, random_blocks("Q4_0", 32, 64))


# A recorded step ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("isa")
def test_a_replay_routes_what_its_tokens_say_then() -> None:
    """The choices of a step are results of the same step: each replay has its own."""
    rng = torch.Generator().manual_seed(0)
    gate_up, down = stack_of(7, 64, ("Q4_1", 64), ("Q4_1", 64)), stack_of(7, 64, ("Q8_0", 64))
    router, norm = torch.randn(7, 64, generator=rng), torch.ones(64)
    inputs = torch.randn(5, 3, 64, generator=rng)

    def step(x: Tensor) -> Tensor:
        for _ in range(2):
            x = ops.rms_norm(x, norm, 1e-6)
            x = ops.experts(x, gate_up, down, *ops.top_experts(x, router, 2, True))
        return x

    want = [step(x).clone() for x in inputs]
    routed = [
        tuple(ops.top_experts(ops.rms_norm(x, norm, 1e-6), router, 2, True)[0].flatten().tolist())
        for x in inputs
    ]
    assert len(set(routed)) == len(routed), "each input takes other experts"
    at = inputs[0].clone()
    recorded = ops.RecordedStep(lambda: step(at))
    assert torch.equal(recorded.result, want[0])
    for number in (1, 4, 2, 0, 3):
        at.copy_(inputs[number])
        assert torch.equal(recorded.replay(), want[number])
    names = [name for name, _ in recorded.timed_replay()]
    assert names.count("top_experts 2 of 7") == names.count("experts 2 of 7, 64 -> 2 * 64 -> 64") == 2
