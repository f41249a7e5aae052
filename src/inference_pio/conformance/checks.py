"""The contract: each check by number; its docstring is the question it answers.

`tests/contract` runs them over every registered plugin, `inference-pio verify` over one, wherever it comes from. In the
tests of a package of its own:

    subject = Subject.of("mymodel", tmp_path, collected={})
    for check in CHECKS:
        check.run(subject)

C15, the shape of the source, concerns this repository and lives in `tests/structure`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from inference_pio.conformance import (
    checkpoint,
    configuration,
    drafting,
    logits,
    ranks,
    serving,
    talking,
    wording,
)
from inference_pio.conformance.subject import Subject


@dataclass(frozen=True)
class Check:
    """`run` raises AssertionError with what differs.

    needs  what there must be some of, so that there is something to check: a field of the case, or "collected"
    """

    number: str
    run: Callable[[Subject], None]
    needs: Literal[
        "", "checkpoints", "shards", "refused_ranks", "not_interchangeable", "chat", "drafting", "collected"
    ] = ""

    @property
    def name(self) -> str:
        return f"{self.number}-{self.run.__name__.removeprefix('check_')}"

    @property
    def question(self) -> str:
        """The first paragraph of the docstring of what is run."""
        return " ".join((self.run.__doc__ or "").partition("\n\n")[0].split())

    def inapplicable(self, subject: Subject) -> str:
        """Why there is nothing to check; empty where there is something."""
        if self.needs == "collected":
            return "" if subject.collected else "no configurations of other models were given to look through"
        return f"the case has no {self.needs}" if self.needs and not getattr(subject.case, self.needs) else ""


CHECKS = (
    Check("C1", configuration.check_manifest_is_light),
    Check("C2", configuration.check_own_claims),
    Check("C2", configuration.check_claims, needs="collected"),
    Check("C3", configuration.check_every_key_counts),
    Check("C3", configuration.check_unknown_is_refused),
    Check("C4", checkpoint.check_real_headers, needs="checkpoints"),
    Check("C5", logits.check_whose_reference),
    Check("C5", logits.check_reference_logits),
    Check("C6", logits.check_decode),
    Check("C7", logits.check_chunks),
    Check("C7", logits.check_steps_without_logits),
    Check("C8", logits.check_ragged_batch),
    Check("C8", logits.check_drafts),
    Check("C9", serving.check_preemption),
    Check("C10", serving.check_prefix_hits),
    Check("C10", serving.check_prefix_policy, needs="not_interchangeable"),
    Check("C11", ranks.check_ranks_agree, needs="shards"),
    Check("C11", ranks.check_plan_divides_everything, needs="shards"),
    Check("C11", ranks.check_refused_ranks, needs="refused_ranks"),
    Check("C12", logits.check_cache_bytes),
    Check("C13", serving.check_cleanup),
    Check("C14", wording.check_detokenisation),
    Check("C14", wording.check_chat, needs="chat"),
    Check("C14", talking.check_answers_are_read, needs="chat"),
    Check("C14", talking.check_earlier_turns, needs="chat"),
    Check("C14", talking.check_system_role, needs="chat"),
    Check("C16", drafting.check_drafts, needs="drafting"),
)
