"""The contract: each check by number; its docstring is the question it answers.

`tests/contract` runs them over every registered plugin. A plugin that lives in a package of its own runs them in its
own tests:

    subject = Subject.of("mymodel", tmp_path, collected={})
    for check in CHECKS:
        check.run(subject)

C15, the shape of the source, concerns this repository and lives in `tests/structure`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from inference_pio.conformance import checkpoint, configuration, logits, ranks, serving, wording
from inference_pio.conformance.subject import Subject


@dataclass(frozen=True)
class Check:
    """`run` raises AssertionError with what differs."""

    number: str
    run: Callable[[Subject], None]

    @property
    def name(self) -> str:
        return f"{self.number}-{self.run.__name__.removeprefix('check_')}"


CHECKS = (
    Check("C1", configuration.check_manifest_is_light),
    Check("C2", configuration.check_claims),
    Check("C3", configuration.check_every_key_counts),
    Check("C3", configuration.check_unknown_is_refused),
    Check("C4", checkpoint.check_real_headers),
    Check("C5", logits.check_reference_logits),
    Check("C6", logits.check_decode),
    Check("C7", logits.check_chunks),
    Check("C7", logits.check_steps_without_logits),
    Check("C8", logits.check_ragged_batch),
    Check("C9", serving.check_preemption),
    Check("C10", serving.check_prefix_hits),
    Check("C10", serving.check_prefix_policy),
    Check("C11", ranks.check_ranks_agree),
    Check("C11", ranks.check_plan_divides_everything),
    Check("C11", ranks.check_refused_ranks),
    Check("C12", logits.check_cache_bytes),
    Check("C13", serving.check_cleanup),
    Check("C14", wording.check_detokenisation),
    Check("C14", wording.check_chat),
)
