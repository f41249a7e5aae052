"""One plugin's names replaced by another's in its files, so that nothing of the first is imported any more.

What belongs to somebody else keeps its name: everything of Transformers and other libraries, names of published models
("Llama-3.2-1B", "qwen2.5-coder"), papers in docstrings.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from inference_pio.scaffold.names import Names
from inference_pio.scaffold.source import Source

_OTHERS = r"transformers[.:/][\w.:/]+|convert_hf_to_gguf\.py(?:'s|,) \w+"
# Python 3.12 cuts f-strings into pieces; those with a brace in them do not lie where they say.
_MIDDLE = vars(tokenize).get("FSTRING_MIDDLE")


@dataclass(frozen=True)
class Renaming:
    """From the names of `package` to those of `names`.

    classes  old class or architecture -> new
    words    the plugin's name, and what GGUF calls its architectures
    stems    how the old classes' names begin; in prose the architecture's name
    files    names of the files beside the code: they stay
    """

    package: str
    names: Names
    classes: Mapping[str, str]
    words: frozenset[str]
    stems: tuple[str, ...]
    files: frozenset[str] = frozenset()

    @classmethod
    def of(cls, source: Source, names: Names) -> Renaming:
        stems = source.stems()
        classes = {name: _renamed(name, stems, names.stem) for name in source.classes}
        words = {source.manifest.name, *source.manifest.gguf_architectures}
        files = frozenset(path.name for path in source.files() if path.suffix != ".py")
        return cls(source.package, names, classes, frozenset(words), stems, files)

    def python(self, code: str) -> str:
        """A module's code: names of its own, strings and comments; imports in order again."""
        others = _names_of_others(ast.parse(code), self.package)
        lines = _lines(code)
        tokens = list(tokenize.generate_tokens(io.StringIO(code).readline))
        for place, new in reversed(self._edits(tokens, others)):
            lines[place.row : place.end_row + 1] = place.replaced(lines, new)
        return sorted_imports("".join(lines), self.names.package)

    def text(self, text: str) -> str:
        """Prose, or the inside of a string."""
        parts = re.split(f"({'|'.join((_OTHERS, *map(re.escape, self.files)))})", text)
        return "".join(part if index % 2 else self._own_text(part) for index, part in enumerate(parts))

    def json(self, text: str) -> str:
        """Data: keys of GGUF metadata, and what says the architecture."""
        for word in self.words:
            text = re.sub(rf'"{re.escape(word)}\.(?=[a-z_.]+"\s*:)', f'"{self.names.plugin}.', text)
            stated = rf'("(?:general\.architecture|model_type)"\s*:\s*"){re.escape(word)}"'
            text = re.sub(stated, rf'\g<1>{self.names.plugin}"', text)
        for old, new in self.classes.items():
            text = text.replace(f'"{old}"', f'"{new}"')
        return text

    def _own_text(self, text: str) -> str:
        for separator in (".", "/"):
            package = self.package.replace(".", separator)
            text = re.sub(rf"(?<![\w./]){re.escape(package)}(?!\w)", self.names.package, text)
            text = re.sub(rf"(?<=src/){re.escape(package)}(?!\w)", self.names.package, text)
        for old, new in self.classes.items():
            text = re.sub(rf"(?<!\w){old}(?!\w)", new, text)
        for word in self.words:
            # Not within the name of something else: qwen2_vl, qwen2.5, smol-llama, llama.cpp.
            text = re.sub(rf"(?<![\w.-]){word}(s?)(?![\w-]|\.cpp|\.\d)", rf"{self.names.plugin}\1", text)
        for stem in self.stems:
            # Where it stands for the plugin ("Llama, throughput"), not in "Llama 3", "Llama-2", "Llama (Touvron …".
            text = re.sub(rf"(?<![\w.-]){stem}(?![\w-]|\.\w| ?\d| \()", self.names.stem, text)
        return text

    def _edits(
        self, tokens: Sequence[tokenize.TokenInfo], others: Collection[str]
    ) -> list[tuple[_Place, str]]:
        path, index = self.package.split("."), 0
        found: list[tuple[_Place, str, str]] = []
        while index < len(tokens):
            token = tokens[index]
            chain = _chain(tokens, index)
            parts = [part.string for part in chain[::2]]
            if parts[: len(path)] == path:
                found.append((_Place.of(chain[0], chain[2 * len(path) - 2]), "", self.names.package))
            elif parts and parts[0] not in others:
                before = tokens[index - 1].string if index else ""
                found += [
                    (_Place.of(part), part.string, self._name(part.string, before)) for part in chain[::2]
                ]
            elif token.type in (tokenize.STRING, tokenize.COMMENT) or _is_middle(token):
                found.append((_Place.of(token), token.string, self.text(token.string)))
            index += max(len(chain), 1)
        return [(place, new) for place, old, new in found if new != old]

    def _name(self, name: str, before: str) -> str:
        if before == "def" and name.startswith("test_"):
            for word in self.words:
                name = re.sub(rf"(?<=_){word}(?=_|$)(?!_cpp|_\d)", self.names.plugin, name)
        return self.classes.get(name, name)


@dataclass(frozen=True)
class _Place:
    """From a token to a token, rows from 0."""

    row: int
    column: int
    end_row: int
    end_column: int

    @classmethod
    def of(cls, first: tokenize.TokenInfo, last: tokenize.TokenInfo | None = None) -> _Place:
        end = (last or first).end
        return cls(first.start[0] - 1, first.start[1], end[0] - 1, end[1])

    def replaced(self, lines: Sequence[str], new: str) -> list[str]:
        """The lines of the place with `new` in it."""
        text = lines[self.row][: self.column] + new + lines[self.end_row][self.end_column :]
        return _lines(text)


def _lines(code: str) -> list[str]:
    """As Python counts them: a form feed ends none."""
    return io.StringIO(code).readlines()


def _is_middle(token: tokenize.TokenInfo) -> bool:
    return token.type == _MIDDLE and not {"{", "}"} & set(token.string)


def _renamed(name: str, stems: Sequence[str], new: str) -> str:
    stem = next((stem for stem in stems if stem in name), "")
    return name.replace(stem, new, 1) if stem else name


def _chain(tokens: Sequence[tokenize.TokenInfo], start: int) -> list[tokenize.TokenInfo]:
    """The tokens of a dotted name that begins at `start`: name, dot, name, …; empty where none begins."""
    if tokens[start].type != tokenize.NAME or (start and tokens[start - 1].string == "."):
        return []
    end = start + 1
    while end + 1 < len(tokens) and tokens[end].string == "." and tokens[end + 1].type == tokenize.NAME:
        end += 2
    return list(tokens[start:end])


def _names_of_others(tree: ast.Module, package: str) -> set[str]:
    """Names that a module imports from anywhere but the plugin's own package."""
    found = set()
    for node in ast.walk(tree):
        own = isinstance(node, ast.ImportFrom) and (node.level or f"{node.module}.".startswith(f"{package}."))
        if isinstance(node, (ast.Import, ast.ImportFrom)) and not own:
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    return found - {package.partition(".")[0]}


def sorted_imports(code: str, package: str) -> str:
    """Each run of imports of inference_pio and of `package` with the package's own last, as linters want them."""
    lines = _lines(code)
    runs: list[list[ast.ImportFrom]] = [[]]
    for node in ast.parse(code).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("inference_pio"):
            runs[-1].append(node)
        elif runs[-1]:
            runs.append([])
    for run in reversed(runs):
        if run:
            first, last = run[0].lineno - 1, run[-1].end_lineno or 0
            own_last = sorted(run, key=lambda node: f"{node.module}.".startswith(f"{package}."))
            moved = [line for node in own_last for line in lines[node.lineno - 1 : node.end_lineno]]
            if len(moved) == last - first:  # nothing stands between them
                lines[first:last] = moved
    return "".join(lines)
