"""What makes a checkpoint the one it is: what was measured on it holds for no other."""

from __future__ import annotations

import hashlib

from inference_pio.loader.tensor_info import Checkpoint

_SAMPLED_TENSORS = 2048
_SAMPLED_BYTES = 1024


def checkpoint_identity(checkpoint: Checkpoint) -> str:
    """64 hex digits: sha256 over each tensor's name, shape, kind, size and first 1024 bytes, in the order of names.

    Where the file lies, what it is called and how it is cut into shards changes nothing. Of more than 2048 tensors
    every so many-th gives its bytes, so that any checkpoint takes milliseconds. This tells checkpoints apart; that no
    bit of one was changed it does not prove.

    Raises:
        ModelFileError: the data cannot be read.
    """
    digest = hashlib.sha256(b"inference-pio checkpoint 1\n")
    every = -(-len(checkpoint.tensors) // _SAMPLED_TENSORS)
    for index, (name, info) in enumerate(sorted(checkpoint.tensors.items())):
        shape = "x".join(map(str, info.shape))
        digest.update(f"{len(name)} {name} {info.dtype} {shape} {info.nbytes}\n".encode())
        if index % every == 0:
            digest.update(checkpoint.first_bytes(name, _SAMPLED_BYTES))
    return digest.hexdigest()
