"""C11: a model divided over simulated ranks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from inference_pio.conformance.bare_model import BareModel
from inference_pio.conformance.case import vocab_size
from inference_pio.conformance.logits import LENGTH
from inference_pio.conformance.numbers import assert_close, token_ids
from inference_pio.conformance.subject import Subject
from inference_pio.errors import ConfigError
from inference_pio.loader.checkpoint import open_checkpoint
from inference_pio.loader.patterns import PatternTable
from inference_pio.parallel import Shard, SimulatedGroup


def check_ranks_agree(subject: Subject) -> None:
    """Every rank's logits equal the undivided model's, in prefill and in decoding."""
    for tiny, sizes in subject.case.shards.items():
        ids = token_ids(LENGTH, vocab_size(subject.case.tiny[tiny]))
        whole = BareModel(subject.plugin(), subject.checkpoint(tiny)).prefill(ids)
        for size in sizes:
            for rank, logits in enumerate(_divided(subject, tiny, size, ids)):
                assert_close(logits, whole, f"{tiny}: rank {rank} of {size}")


def check_plan_divides_everything(subject: Subject) -> None:
    """The plan has a rule for each tensor of the checkpoint, and each rank really holds less than the whole."""
    for tiny, sizes in subject.case.shards.items():
        whole = _num_parameters(subject, tiny, Shard())
        plugin = subject.plugin()
        plan = plugin.shard_plan(plugin.read_config(subject.case.tiny[tiny], tiny))
        rules = PatternTable(plan.rules)
        with open_checkpoint(subject.checkpoint(tiny)) as checkpoint:
            bare = [name for name in checkpoint.tensors if rules.find(name) is None]
        assert not bare, f"{tiny}: the shard plan has no rule for {', '.join(bare)}"
        for size in sizes:
            assert size in plan.legal_sizes, f"{tiny}: the plan does not allow {size} ranks"
            part = _num_parameters(subject, tiny, Shard(0, size, SimulatedGroup(size)))
            assert part < whole, f"{tiny}: one of {size} ranks holds {part} of {whole} parameters"


def check_refused_ranks(subject: Subject) -> None:
    """Numbers of ranks that do not divide the model are not in the plan's list and are refused."""
    for tiny, sizes in subject.case.refused_ranks.items():
        plugin = subject.plugin()
        plan = plugin.shard_plan(plugin.read_config(subject.case.tiny[tiny], tiny))
        for size in sizes:
            assert size not in plan.legal_sizes, f"{tiny}: the plan allows {size} ranks"
            shard = Shard(0, size, SimulatedGroup(size))
            try:
                BareModel(subject.plugin(), subject.checkpoint(tiny), shard=shard)
            except (ConfigError, ValueError):
                continue
            raise AssertionError(f"{tiny}: {size} ranks are not refused")


def _divided(subject: Subject, tiny: str, size: int, ids: list[int]) -> list[Tensor]:
    group = SimulatedGroup(size)
    path = subject.checkpoint(tiny)

    def rank(number: int) -> Tensor:
        model = BareModel(subject.plugin(), path, shard=Shard(number, size, group))
        prompt = len(ids) - 3
        decoded = (model.run([(0, [token_id])])[0] for token_id in ids[prompt:])
        return torch.cat([model.prefill(ids[:prompt]), *decoded])

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(rank, range(size)))


def _num_parameters(subject: Subject, tiny: str, shard: Shard) -> int:
    plugin = subject.plugin()
    config = plugin.read_config(subject.case.tiny[tiny], tiny)
    with torch.device("meta"):
        model = plugin.build_model(config, shard)
    return sum(parameter.numel() for parameter in model.parameters())
