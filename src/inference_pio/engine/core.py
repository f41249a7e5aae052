"""The engine: requests in, tokens out, one step at a time. It knows token ids and nothing of text or files."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from collections.abc import Sequence as Items
from time import perf_counter

import torch
from torch import nn

from inference_pio.cache.prefix_index import PrefixIndex
from inference_pio.cache.specs import CacheSpec
from inference_pio.cache.tiers import PrefixTier
from inference_pio.engine.batch import build_batch
from inference_pio.engine.block_manager import BlockManager
from inference_pio.engine.checks import MODEL_ERRORS, check_request
from inference_pio.engine.config import EngineConfig
from inference_pio.engine.drawing import draw_all
from inference_pio.engine.eviction import Eviction
from inference_pio.engine.explaining import PrefixHistory
from inference_pio.engine.ledger import Ledger, Usage
from inference_pio.engine.media import MediaSide
from inference_pio.engine.runner import ModelRunner
from inference_pio.engine.sampler import Sample, append, is_plain_greedy
from inference_pio.engine.scheduler import Scheduler
from inference_pio.engine.script import Script
from inference_pio.engine.sequence import Drafts, Known, Request, Sequence, answers
from inference_pio.engine.speculation import Speculation
from inference_pio.engine.state_slots import StateSlots
from inference_pio.engine.tiering import TierSide
from inference_pio.engine.updates import EngineStats, SequenceUpdate
from inference_pio.errors import GenerationError, PluginError, UsageError
from inference_pio.metrics.power import Meter
from inference_pio.outputs import FinishReason
from inference_pio.plugin.facts import PrefixPolicy
from inference_pio.plugin.media import PromptMedia
from inference_pio.plugin.paged import widest_window
from inference_pio.sampling_params import SamplingParams


class EngineCore:
    """Continuous batching over a paged cache, for any model that follows the contract of `plugin/batch.py`.

    Synchronous and single-threaded: `add_request`, then `step` while `has_work`. `EngineLoop` runs it for many
    threads. A sequence whose first scheduled position is 0 starts anew: models with recurrent state begin there
    from zero, whatever its slot held before. At any other position they go on from what its slot holds.
    """

    def __init__(
        self,
        model: nn.Module,
        specs: Items[CacheSpec],
        config: EngineConfig,
        *,
        vocab_size: int,
        eos_token_ids: Iterable[int],
        prefix_policy: PrefixPolicy,
        device: torch.device,
        media: MediaSide | None = None,
        tier: PrefixTier | None = None,
        meter: Meter | None = None,
    ) -> None:
        """`tier` is where blocks go that memory has no room for; `close` leaves the others there too. `meter` counts
        the energy of requests."""
        self.config = config
        self.vocab_size = vocab_size
        self._eos_token_ids = frozenset(eos_token_ids)
        self._runner = ModelRunner(model, specs, config, vocab_size, device)
        by_snapshots = prefix_policy.reuse == "snapshots"
        if self._runner.keeps_state and not by_snapshots:
            raise PluginError(
                'a layer keeps state, which cannot be cut: the prefix policy needs reuse="snapshots"'
            )
        self._reuses_prefixes = config.enable_prefix_caching and (
            not by_snapshots or config.num_snapshots > 0
        )
        self._states: StateSlots | None = None
        if self._runner.keeps_state:
            places = prefix_policy.snapshots_at if self._reuses_prefixes else ()
            self._states = StateSlots(self._runner.states, config, places)
        below = None
        if tier is not None:
            if self._states is not None or not self._reuses_prefixes:
                raise PluginError(
                    "a tier below the prefix cache needs prefixes that are reused, and no state"
                )
            below = TierSide(tier, self._runner.caches, config.num_blocks)
        index = PrefixIndex(prefix_policy.seed, *([tier.generation] if tier else ()))
        history = PrefixHistory(config.block_size, tier) if config.explain_cache else None
        self._blocks = BlockManager(
            config, index if self._reuses_prefixes else None, self._states, below, history
        )
        self._eviction: Eviction | None = None
        if config.eviction is not None:
            self._eviction = Eviction(config.eviction, self._blocks, widest_window(model, specs))
        self._scheduler = Scheduler(config, self._blocks)
        self._predictor = self._runner.predictor
        self._speculation = Speculation(config, self._blocks, self._predictor) if config.speculation else None
        self._media = media
        self._requests: dict[str, Request] = {}
        self._pending: list[SequenceUpdate] = []
        self._arrivals = 0
        self._ledger = Ledger(meter)
        self._generation_tokens = 0
        self._accepted_drafts = 0

    @property
    def has_work(self) -> bool:
        return bool(self._requests or self._pending)

    def check_request(self, prompt_token_ids: Items[int], params: SamplingParams) -> list[int]:
        """The prompt as a list; raises what `add_request` would. Reads nothing that changes: any thread may call it."""
        return check_request(
            prompt_token_ids, params, vocab_size=self.vocab_size, max_model_len=self.config.max_model_len
        )

    def add_request(
        self,
        request_id: str,
        prompt_token_ids: Items[int],
        params: SamplingParams,
        media: PromptMedia | None = None,
        script: Script | None = None,
        arrived: float | None = None,
        done: Known = (),
    ) -> None:
        """Queue `params.n` answers to a prompt, `media` being its images; `script` is the answer, where it is given,
        `arrived` when the caller got it, by `perf_counter` (now), and `done` what is answered already.

        Raises:
            UsageError: a request of this name is running, or a script is given to an engine that drafts.
            SamplingError, ContextLengthError: it cannot be served (`check_request`).
        """
        prompt = self.check_request(prompt_token_ids, params)
        if script is not None and self._speculation is not None:
            raise UsageError("an answer that is given needs an engine that drafts nothing: speculation 0")
        if request_id in self._requests:
            raise UsageError(f"request {request_id} is running already: give each request a name of its own")
        max_tokens = params.max_tokens or self.config.max_model_len
        request = Request(
            request_id=request_id,
            prompt_len=len(prompt),
            params=params,
            seed=secrets.randbits(63) if params.seed is None else params.seed,
            eos_token_ids=self._eos_token_ids,
            end_token_ids=tuple(self._eos_token_ids.union(params.stop_token_ids)),
            max_len=min(len(prompt) + max_tokens, self.config.max_model_len),
            plain_greedy=is_plain_greedy(params),
            media=media,
            script=script,
            usage=Usage(self._ledger, perf_counter() if arrived is None else arrived),
        )
        request.sequences = answers(request, self._arrivals, prompt, done)
        self._arrivals += params.n
        self._requests[request_id] = request
        self._scheduler.add(request.sequences)

    def abort(self, request_id: str) -> None:
        """End a request now; its blocks are free on return. The next step reports it. Finished ones are no error."""
        request = self._requests.get(request_id)
        if request is not None:
            self._pending += self._end(request, "abort")

    def step(self) -> list[SequenceUpdate]:
        """Compute one batch; what it added to each answer. A failing forward pass fails the requests in it only."""
        started = perf_counter()
        updates, self._pending = self._pending, []
        scheduled = self._scheduler.schedule()
        if self._media:
            updates += self._encode(scheduled)
        if not scheduled:
            return updates
        self._ledger.begin(scheduled)
        updates += self._compute(scheduled, started)
        self._ledger.end(scheduled, started, self.config.num_blocks - self._blocks.num_free_blocks)
        return updates

    def _compute(self, scheduled: dict[Sequence, int], started: float) -> list[SequenceUpdate]:
        try:
            drafts = self._speculation.draft(scheduled) if self._speculation else {}
            batch, sampled = build_batch(
                scheduled,
                drafts,
                self._blocks.tables,
                self.config.block_size,
                self._runner.device,
                with_state=self._runner.keeps_state,
            )
            if self._states:
                self._states.expect(list(scheduled), drafts)
            if self._media:
                batch = self._media.extend(batch, scheduled, drafts)
            if self._eviction:
                batch = self._eviction.watch(batch, scheduled)
            samples = draw_all(self._runner, batch, sampled, drafts)
            if self._predictor is not None:
                self._predictor.remember(scheduled, batch, dict(zip(sampled, samples, strict=True)))
        except MODEL_ERRORS as error:
            return self._fail(scheduled, error)
        self._scheduler.advance(scheduled)
        updates = self._update(sampled, samples, drafts)
        if self._eviction:
            self._eviction.decide(scheduled)
        if self._speculation:
            self._speculation.record(perf_counter() - started)
        return updates

    def stats(self) -> EngineStats:
        scheduler, total = self._scheduler, self.config.num_blocks
        return EngineStats(
            num_running=len(scheduler.running),
            num_waiting=scheduler.num_waiting,
            blocks_used=total - self._blocks.num_free_blocks,
            blocks_total=total,
            work=self._ledger.totals(),
            tokens_under_way=self._ledger.tokens_under_way,
            preemptions=scheduler.num_preemptions,
            prompt_tokens=scheduler.num_prompt_tokens,
            generation_tokens=self._generation_tokens,
            prefix_query_tokens=scheduler.num_prompt_tokens if self._reuses_prefixes else 0,
            prefix_hit_tokens=scheduler.num_cached_tokens,
            prefix_tier_hit_tokens=self._blocks.num_loaded_tokens,
            draft_tokens=self._speculation.num_drafted if self._speculation else 0,
            accepted_draft_tokens=self._accepted_drafts,
            predicted_draft_tokens=self._speculation.num_predicted if self._speculation else 0,
            accepted_predicted_tokens=self._speculation.num_accepted_predictions if self._speculation else 0,
            evicted_tokens=self._eviction.num_evicted_tokens if self._eviction else 0,
        )

    def reset_prefix_cache(self) -> int:
        """Forget all cached prefixes; returns how many blocks held one. Running requests go on."""
        if self._media:
            self._media.clear()
        return self._blocks.forget()

    def close(self) -> None:
        """Leave cached prefixes to the tier below, if there is one; nothing may follow."""
        self._blocks.close()

    def check_integrity(self) -> None:
        """Raise AssertionError unless every block and slot is accounted for; for tests."""
        self._blocks.check_integrity(self._scheduler.running)

    def _update(
        self, sequences: list[Sequence], samples: list[list[Sample]], drafts: Drafts
    ) -> list[SequenceUpdate]:
        updates = []
        for sequence, drawn in zip(sequences, samples, strict=True):
            if sequence.finish_reason is not None:  # another answer to the same prompt failed in this step
                continue
            error = drawn[-1].error
            taken = append(sequence, drawn if error is None else drawn[:-1])
            if self._speculation is not None and sequence in drafts:
                # All that was drawn but the last are drafts that were right.
                accepted = min(len(taken), len(drawn) - 1)
                self._accepted_drafts += accepted
                sequence.request.usage.drafts += len(drafts[sequence])
                sequence.request.usage.accepted_drafts += accepted
                self._speculation.settle(sequence, accepted)
                self._scheduler.accept(sequence, accepted)
            if taken:
                updates.append(self._report(sequence, taken))
            if error is not None and sequence.finish_reason is None:
                updates += self._end(sequence.request, "error", error)
        return updates

    def _report(self, sequence: Sequence, taken: list[Sample]) -> SequenceUpdate:
        """Tell of new tokens, and let the sequence go if the last of them ended it."""
        self._generation_tokens += len(taken)
        self._ledger.told(sequence.request.usage)
        last = taken[-1].token_id
        if sequence.finish_reason is not None:
            self._retire(sequence)
        by_request = sequence.finish_reason == "stop" and not sequence.ends_by_model(last)
        return SequenceUpdate(
            sequence.request.request_id,
            sequence.index,
            tuple([sample.token_id for sample in taken]),
            sequence.num_cached_tokens or 0,
            logprobs=[sample.logprobs for sample in taken if sample.logprobs is not None] or None,
            finish_reason=sequence.finish_reason,
            stop_reason=last if by_request else None,
            cache=sequence.explanation,
            usage=sequence.request.usage,
        )

    def _encode(self, scheduled: dict[Sequence, int]) -> list[SequenceUpdate]:
        """Encode the images that a step reaches; a request whose image fails ends here and leaves the step."""
        assert self._media is not None
        updates = []
        for sequence, num_tokens in list(scheduled.items()):
            if sequence.finish_reason is not None:  # another answer to the same prompt failed
                continue
            try:
                self._media.encode(sequence, num_tokens)
            except MODEL_ERRORS as error:
                failed = sequence.request.sequences
                updates += self._fail([sequence], error)
                for answer in failed:
                    scheduled.pop(answer, None)
        return updates

    def _fail(self, scheduled: Iterable[Sequence], cause: Exception) -> list[SequenceUpdate]:
        updates = []
        for request in {sequence.request: None for sequence in scheduled}:
            reason = (str(cause) or "no message").splitlines()[0]
            error = GenerationError(
                f"request {request.request_id}: the model failed: {type(cause).__name__}: {reason}"
            )
            error.__cause__ = cause
            updates += self._end(request, "error", error)
        return updates

    def _end(
        self, request: Request, reason: FinishReason, error: GenerationError | None = None
    ) -> list[SequenceUpdate]:
        """End all answers of a request that are not finished."""
        updates = []
        for sequence in request.sequences:
            if sequence.finish_reason is None:
                sequence.finish_reason = reason
                self._retire(sequence)
                updates.append(
                    SequenceUpdate(
                        request.request_id,
                        sequence.index,
                        (),
                        sequence.num_cached_tokens or 0,
                        finish_reason=reason,
                        error=error,
                        cache=sequence.explanation,
                        usage=request.usage,
                    )
                )
        return updates

    def _retire(self, sequence: Sequence) -> None:
        last = all(other.finish_reason is not None for other in sequence.request.sequences)
        self._ledger.retire(sequence, last=last)
        self._scheduler.remove(sequence)
        if self._states:
            self._states.end(sequence)
        if self._media:
            self._media.trim()
        if last:
            del self._requests[sequence.request.request_id]
            # Else they hold each other, until the next collection of all garbage: that is thousands of requests away.
            sequence.request.sequences = []
