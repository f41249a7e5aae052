"""Does this plugin compute what its architecture computes? Fails until it is compared with Mistral, and equal.

What to do:

1. `tests/reference.py`: make the reference an implementation of Mistral, Transformers' class for instance. It is still
   the one of llama, which is why `tests/test_parity.py` fails.
2. `__init__.py`: what the `architectures` of a real config.json say, the name that GGUF files use (none: an empty
   tuple), one line about the models.
3. `config.py`: every key of a real config.json is read, or listed as ignored with a reason; what the architecture does
   not know is refused. The defaults are still those of llama's default model.
4. `tests/case.py`: tiny configurations as Mistral writes them, between them every branch of the architecture; names and
   shapes of real checkpoints; chat templates.
5. `model.py` and the folders beside it: the mathematics, until the logits are the reference's.
6. `linear_optimizations/weight_layout.py`, `tensor_parallel/tensor_parallel_layers.py`: names of tensors, and how they
   are divided.
7. `benchmarks/workloads.py`: the model to measure. What each technique says of itself: `inference-pio plugins mistral`.
"""

from __future__ import annotations

from inference_pio.conformance.logits import check_reference_logits, check_whose_reference
from inference_pio.conformance.subject import Subject


def test_the_reference_is_of_this_architecture(subject: Subject) -> None:
    """As generated, `tests/reference.py` makes the model that this plugin was copied from: step 1."""
    check_whose_reference(subject)


def test_logits_are_the_references(subject: Subject) -> None:
    """Every tiny configuration, from each kind of checkpoint, at every position."""
    check_whose_reference(subject)
    check_reference_logits(subject)
