"""The table of targets: what is fuzzed, and which modules that covers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import source_targets, tensor_targets

CORPUS = Path(__file__).with_name("corpus")


@dataclass(frozen=True)
class Target:
    """A decoder with what its results are compared with.

    Attributes:
        run: Decodes bytes. Any exception is a defect.
        modules: Modules that it is to cover, below `mlserver_pyfunc`.
        words: Texts that the fuzzer puts into its inputs.
        max_bytes: Length of the longest input.
    """

    run: Callable[[bytes], None]
    modules: tuple[str, ...]
    words: tuple[str, ...] = ()
    max_bytes: int = 1024


_REQUEST = (
    '"inputs"', '"outputs"', '"parameters"', '"name"', '"shape"', '"datatype"', '"data"', '"id"',
    '"binary_data_size"', '"content_type"', '"base64"', '"BOOL"', '"UINT8"', '"UINT64"', '"INT32"',
    '"FP16"', '"FP32"', '"FP64"', '"BYTES"', "[[", "]]", "true", "null", "1e39", "-0.0",
    "18446744073709551615",
)  # fmt: skip
_HEAD = (
    '"tensors":',
    '"region":',
    '"released":',
    '"id":',
    "[0,8]",
    '["f",[2],0,8]',
    '"parameters"',
)
_YAML = (
    "source:", "handler:", "inputs:", "shape:", "datatype:", "serving:", "warmup:", "<<: *a", "&a",
    "*a", "!!int", "!!float", "!!binary", "? ", "- ", "| ", "> ", "{", "}", "[", "]", "0x", "1:1",
)  # fmt: skip
_LOCK = ("version: 1", "source:", "commit:", "sha256:", "tree_sha256:", "requirements:", "image:",
         "inputs:", "digest: sha256:", "origin:")  # fmt: skip
_URI = ("git+https://", "git+ssh://", "git+file://", "https://", "zip+s3://", "file://", "u:p@",
        "#main", "?a=b", ".zip", "::", "%2d", "[::1]", ":22", "..")  # fmt: skip
_DATA = ("protocol/tensors.py", "protocol/bytes_tensors.py", "protocol/datatypes.py")

TARGETS = {
    "rest_binary": Target(
        tensor_targets.rest_binary, ("hosts/common/rest_request.py", *_DATA), _REQUEST
    ),
    "rest_json": Target(
        tensor_targets.rest_json, ("hosts/common/json_body.py", *_DATA), _REQUEST
    ),
    "grpc_typed": Target(
        tensor_targets.grpc_typed, ("hosts/common/grpc_messages.py", *_DATA), max_bytes=256
    ),
    "grpc_raw": Target(tensor_targets.grpc_raw, ("hosts/common/grpc_messages.py", *_DATA)),
    "worker": Target(
        tensor_targets.worker,
        ("serving/workers/wire/codec.py", "serving/workers/wire/shared_memory.py", *_DATA),
        _HEAD,
        512,
    ),
    "zip": Target(
        source_targets.zip_archive, ("sources/archive.py", "sources/safe_tree.py"), ("PK", "..")
    ),
    "tar": Target(
        source_targets.tar_archive, ("sources/archive.py", "sources/safe_tree.py"), ("ustar", ".."),
        4096,
    ),
    "uri": Target(source_targets.source_uri, ("sources/uri.py",), _URI, 128),
    "yaml": Target(
        source_targets.yaml_text, ("definition/yaml_reader.py", "definition/reading.py"), _YAML
    ),
    "lock": Target(source_targets.function_lock, ("sources/lock.py",), _LOCK),
    "inflate": Target(source_targets.compressed_body, ("hosts/mlserver/rest_bounds.py",)),
}  # fmt: skip
