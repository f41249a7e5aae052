"""Files and folders out of rows of the data files beside this one: bytes that are wrong in one place."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.gguf_bytes import ARCHITECTURE, GGUFBytes, pair, tensor, text

Row = dict[str, Any]
_HERE = Path(__file__).parent
_GOOD = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
}
_OTHER = {"c": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
# What names a row and what is expected of it; the rest says how it is made.
EXPECTED = ("id", "name", "words", "error", "stage", "at", "worker", "front_ends", "megabytes", "why")


def read_table(name: str) -> dict[str, list[Row]]:
    return tomllib.loads((_HERE / name).read_text(encoding="utf-8"))


def rows(name: str) -> dict[str, Row]:
    """The rows of a data file by id and name."""
    found = {f"{row['id']} {row['name']}": row for row in read_table(name)["row"]}
    assert len(found) == len(read_table(name)["row"])
    return found


# Safetensors ----------------------------------------------------------------------------------------------------------


def safetensors(row: Row) -> bytes:
    if "zeros" in row:
        return bytes(row["zeros"])
    raw = _header(row)
    return struct.pack("<Q", row.get("length", len(raw))) + raw + bytes(row.get("data", 32))


def _header(row: Row) -> bytes:
    if "hex" in row:
        return bytes.fromhex(row["hex"])
    if "header" in row:
        return str(row["header"]).encode()
    if "repeated" in row:
        before, what, times, after = row["repeated"]
        return f"{before}{what * times}{after}".encode()
    if "tensors" in row:
        empty = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
        return json.dumps({f"t{number}": empty for number in range(row["tensors"])}).encode()
    changes: Mapping[str, Row] = row.get("change", {})
    names = {**_GOOD, **changes}
    return json.dumps({name: {**_GOOD.get(name, {}), **changes.get(name, {})} for name in names}).encode()


def put_safetensors(folder: Path, row: Row) -> None:
    """A row of `model_files.toml`, into the folder of a good model."""
    changed_json(folder / "config.json", row.get("config", {}))
    if "index" in row:
        _put_sharded(folder, row)
    elif set(row) - {*EXPECTED, "config"} or not row.get("config"):
        (folder / "model.safetensors").write_bytes(safetensors(row))


def _put_sharded(folder: Path, row: Row) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "m-1.safetensors").write_bytes(safetensors({}))
    (folder / "m-2.safetensors").write_bytes(safetensors({"header": json.dumps(_OTHER), "data": 8}))
    index = row["index"] if isinstance(row["index"], str) else json.dumps({"weight_map": row["index"]})
    (folder / "model.safetensors.index.json").write_text(index)
    if "outside" in row:
        shard = folder / row["outside"]
        shard.rename(folder.parent / f"{folder.name}-outside")
        shard.symlink_to(folder.parent / f"{folder.name}-outside")
    if "cut" in row:
        os.truncate(folder / row["cut"], (folder / row["cut"]).stat().st_size - 1)


# GGUF -----------------------------------------------------------------------------------------------------------------


def gguf(row: Row) -> bytes:
    if "start" in row:
        return bytes.fromhex(row["start"])
    if "model" in row:
        return _llama(row["model"])
    built = GGUFBytes(
        pairs=[ARCHITECTURE] * row.get("architecture", True) + [_pair(each) for each in row.get("pairs", [])],
        **{name: row[name] for name in ("version", "tensor_count", "pair_count", "alignment") if name in row},
    )
    built.magic = str(row.get("magic", "GGUF")).encode()
    if "tensors" in row:
        built.tensors = [_tensor(each) for each in row["tensors"]]
        built.data = bytes(4096)
    if "data" in row:
        built.data = bytes(row["data"])
    whole = built.build()
    return whole[: len(whole) - row.get("cut", 0)]


def _pair(each: Row) -> bytes:
    if "raw" in each:
        return _value(each["raw"])
    return pair(_named(each, "key"), each["type"], _value(each["value"]))


def _tensor(each: Row) -> bytes:
    return tensor(_named(each, "name"), tuple(each["sizes"]), each["type"], each["offset"], each.get("dims"))


def _named(each: Row, what: str) -> str | bytes:
    if f"{what}_hex" in each:
        return bytes.fromhex(each[f"{what}_hex"])
    return str(each[what]) * each.get("times", 1)


def _value(parts: list[Any]) -> bytes:
    return b"".join(map(_part, parts))


def _part(part: Any) -> bytes:
    if isinstance(part, str):
        return text(part)
    if isinstance(part, list):
        return struct.pack(*part)
    return bytes.fromhex(part["hex"]) if "hex" in part else _part(part["part"]) * int(part["times"])


_LLAMA: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 96,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.dimension_count": 16,
    "llama.context_length": 512,
    "llama.vocab_size": 32,
}
_SHAPES = {"attn_norm": (64,), "ffn_norm": (64,), "attn_q": (64, 64), "attn_k": (64, 32), "attn_v": (64, 32)}
_SHAPES |= {"attn_output": (64, 64), "ffn_gate": (64, 96), "ffn_up": (64, 96), "ffn_down": (96, 64)}


def _llama(changes: Mapping[str, Any]) -> bytes:
    """A llama of two blocks, with these keys in the place of its own; without those that are empty."""
    kinds = {str: 8, int: 4, float: 6}
    packed = {str: text, int: struct.Struct("<I").pack, float: struct.Struct("<f").pack}
    facts = {key: value for key, value in {**_LLAMA, **changes}.items() if value != ""}
    shapes = {"token_embd.weight": (64, 32), "output_norm.weight": (64,)}
    shapes |= {f"blk.{block}.{name}.weight": shape for block in range(2) for name, shape in _SHAPES.items()}
    tensors, offset = [], 0
    for name, sizes in shapes.items():
        tensors.append(tensor(name, sizes, 0, offset))
        offset += 4 * sizes[0] * (sizes[1] if len(sizes) > 1 else 1)
    pairs = [pair(key, kinds[type(value)], packed[type(value)](value)) for key, value in facts.items()]
    return GGUFBytes(pairs=pairs, tensors=tensors, data=bytes(offset)).build()


# Folders --------------------------------------------------------------------------------------------------------------


def changed_json(file: Path, changes: Mapping[str, Any]) -> None:
    """Keys in a JSON file, new or replaced: "model/type" lies deeper, "added_tokens/+1" is one more of a list."""
    if not changes:
        return
    whole = json.loads(file.read_text()) if file.exists() else {}
    for key, value in changes.items():
        *above, last = key.split("/")
        place = whole
        for name in above:
            place = place[int(name) if isinstance(place, list) else name]
        if last.startswith("+"):
            place.append(value)
        else:
            place[int(last) if isinstance(place, list) else last] = value
    file.write_text(json.dumps(whole))


def put_directory(folder: Path, row: Row) -> Path:
    """A row of `directories.toml`, done to the folder of a good model; what is then opened."""
    for name, changes in row.get("change", {}).items():
        changed_json(folder / name, changes)
    for name, content in row.get("write", {}).items():
        (folder / name).write_text(content)
    for name, (before, what, times, after) in row.get("repeated", {}).items():
        (folder / name).write_text(f"{before}{what * times}{after}")
    for name, size in row.get("sparse", {}).items():
        os.truncate(folder / name, size)
    for name in row.get("without", []):
        (folder / name).unlink()
    for name, kind in row.get("special", {}).items():
        special(folder / name, kind)
    if "rename" in row:
        folder = folder.rename(folder.parent / row["rename"])
    return folder / row["open"] if "open" in row else folder


def special(path: Path, kind: str) -> None:
    """Put something in the place of a file that is none."""
    if path.is_file():
        path.unlink()
    if kind == "pipe":
        os.mkfifo(path)  # opening it would wait
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))  # socket paths must be short
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(kind)


def copied(model: Path, folder: Path) -> Path:
    """A copy of a good model that may be spoilt."""
    return Path(shutil.copytree(model, folder / "model"))
