"""What a new package says about itself: how it is built and registered, and what is left to do."""

from __future__ import annotations

from inference_pio import __version__
from inference_pio.scaffold.names import Names
from inference_pio.scaffold.source import Source

_STEPS = """\
1. `tests/reference.py`: make the reference an implementation of {stem}, Transformers' class for instance. It is still
   the one of {source}, which is why `tests/test_parity.py` fails.
2. `__init__.py`: what the `architectures` of a real config.json say, the name that GGUF files use (none: an empty
   tuple), one line about the models.
3. `config.py`: every key of a real config.json is read, or listed as ignored with a reason; what the architecture does
   not know is refused. The defaults are still those of {source}'s default model.
4. `tests/case.py`: tiny configurations as {stem} writes them, between them every branch of the architecture; names and
   shapes of real checkpoints; chat templates.
5. `model.py` and the folders beside it: the mathematics, until the logits are the reference's.
6. `linear_optimizations/weight_layout.py`, `tensor_parallel/tensor_parallel_layers.py`: names of tensors, and how they
   are divided.
7. `benchmarks/workloads.py`: the model to measure. What each technique says of itself: `inference-pio plugins {name}`.
"""

_PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{distribution}"
version = "0.1.0"
description = "{stem} for Inference-PIO"
readme = "README.md"
requires-python = ">=3.11"
{licence}
dependencies = ["inference-pio>={version}"]

[project.optional-dependencies]
test = ["inference-pio[reference]", "pytest>=8.4"]

# This is what registers the plugin: nothing of Inference-PIO is touched.
[project.entry-points."inference_pio.models"]
{name} = "{package}:MANIFEST"

[tool.setuptools.packages.find]
where = ["src"]

[tool.setuptools.package-data]
{package} = [{data}]

[tool.pytest.ini_options]
testpaths = ["src/{package}/tests"]
addopts = ["-ra", "--strict-markers", "--import-mode=importlib"]
markers = ["slow: takes more than a few seconds", "weights: needs a model's published weights"]

[tool.ruff]
line-length = 110

[tool.ruff.lint]
select = ["E", "F", "I", "B"]

[tool.ruff.lint.pycodestyle]
max-line-length = 120

[tool.ruff.lint.isort]
known-first-party = ["inference_pio", "{package}"]
"""

_README = """\
# {stem} for Inference-PIO

A plugin: one model architecture behind the interface of Inference-PIO, begun as a copy of `{source}` under new names.

```
pip install -e .                # registers `{name}`; Inference-PIO itself stays as it is
pip install -e '.[test]'        # what the checks compare with
inference-pio verify {name}     # which parts of the contract hold
pytest                          # the plugin's own tests
```

## What is left to do

Paths are relative to `src/{package}`. After each step `inference-pio verify {name}` says what is still wrong, and
`--only C5` repeats one check.

{steps}"""

_PARITY = '''\
"""Does this plugin compute what its architecture computes? Fails until it is compared with {stem}, and equal.

What to do:

{steps}"""

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
'''


def pyproject(source: Source, names: Names, data: tuple[str, ...]) -> str:
    built_in = source.origin == "built-in"
    licence = "the code of Inference-PIO is Apache-2.0" if built_in else f"see the licence of {source.origin}"
    stated = 'license = "Apache-2.0"' if built_in else "# license:"
    return _PYPROJECT.format(
        distribution=names.distribution,
        stem=names.stem,
        name=names.plugin,
        package=names.package,
        version=__version__,
        licence=f"{stated}  # {licence}, and this began as a copy of a part of it",
        data=", ".join(f'"{kind}"' for kind in data),
    )


def readme(source: Source, names: Names) -> str:
    return _README.format(
        stem=names.stem,
        source=source.manifest.name,
        name=names.plugin,
        package=names.package,
        steps=_steps(source, names),
    )


def parity_test(source: Source, names: Names) -> str:
    return _PARITY.format(stem=names.stem, steps=_steps(source, names))


def _steps(source: Source, names: Names) -> str:
    return _STEPS.format(stem=names.stem, source=source.manifest.name, name=names.plugin)
