"""The C interface of kernels/include/edgebit.h in ctypes: structures, prototypes, and the host function table.

Nothing here has behaviour of its own; library.py and what builds on it give it owners and errors.
"""

import ctypes
import mmap
import sys
import time
from ctypes import (
    POINTER,
    c_char,
    c_char_p,
    c_double,
    c_float,
    c_int,
    c_int32,
    c_size_t,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
)
from typing import TypeAlias

ABI_VERSION = 5
MAX_STOP_TOKENS = 8
MAX_DRAFT, DRAFT_KINDS = 64, 5

TokenSet: TypeAlias = ctypes.Array[c_uint32]  # [(vocab_size + 31) // 32], a bit for each token

OK, BAD_ARGUMENT, IO, BAD_FORMAT, UNSUPPORTED, NO_MEMORY, LIMIT, CANCELLED, MISMATCH = range(9)

KV_TYPES = {"f16": 1, "int8": 2, "f32": 3}  # eb_kv_type

_AT_HWCAP, _AT_HWCAP2 = 16, 26

# Members of eb_host that are libc functions of the same name, in the order of the structure.
_HOST_FUNCTIONS = (
    "malloc", "free", "open", "lseek", "mmap", "munmap", "close", "pthread_create", "pthread_join",
    "pthread_mutex_init", "pthread_mutex_lock", "pthread_mutex_unlock", "pthread_mutex_destroy",
    "pthread_cond_init", "pthread_cond_wait", "pthread_cond_broadcast", "pthread_cond_destroy",
    "sched_yield", "clock_gettime",
)  # fmt: skip


class Error(ctypes.Structure):
    """eb_error."""

    _fields_ = [("text", c_char * 256)]


class Host(ctypes.Structure):
    """eb_host."""

    _fields_ = [
        ("size", c_uint32),
        ("map_private", c_int32),
        ("clock_monotonic", c_int32),
        ("reserved", c_uint32),
        ("hwcap", c_uint64),
        ("hwcap2", c_uint64),
        ("isa", c_char_p),
        *[(name, c_void_p) for name in _HOST_FUNCTIONS],
    ]


class ModelInfoStruct(ctypes.Structure):
    """eb_model_info."""

    _fields_ = [
        ("hidden_size", c_uint32),
        ("ffn_size", c_uint32),
        ("n_layers", c_uint32),
        ("n_heads", c_uint32),
        ("n_kv_heads", c_uint32),
        ("head_dim", c_uint32),
        ("vocab_size", c_uint32),
        ("context_max", c_uint32),
        ("bos_token", c_int32),
        ("n_stop_tokens", c_uint32),
        ("stop_tokens", c_int32 * MAX_STOP_TOKENS),
        ("weight_bytes", c_uint64),
        ("bytes_per_token", c_uint64),
    ]


class Range(ctypes.Structure):
    """eb_range."""

    _fields_ = [("begin", c_size_t), ("end", c_size_t)]


class EngineOptions(ctypes.Structure):
    """eb_engine_options."""

    _fields_ = [
        ("size", c_uint32),
        ("ctx_len", c_uint32),
        ("n_sequences", c_uint32),
        ("n_threads", c_uint32),
        ("batch_len", c_uint32),
        ("logits_rows", c_uint32),
        ("kv_type", c_uint32),
    ]


class Batch(ctypes.Structure):
    """eb_batch."""

    _fields_ = [
        ("n_tokens", c_uint32),
        ("tokens", POINTER(c_int32)),
        ("sequences", POINTER(c_uint32)),
        ("want_logits", POINTER(c_uint8)),
        ("n_best", c_uint32),
        ("allowed", POINTER(POINTER(c_uint32))),
    ]


class StatsStruct(ctypes.Structure):
    """eb_stats."""

    _fields_ = [
        ("prefill_tokens", c_uint64),
        ("prefill_ns", c_uint64),
        ("decode_tokens", c_uint64),
        ("decode_ns", c_uint64),
        ("weight_bytes", c_uint64),
        ("kv_bytes", c_uint64),
        ("arena_bytes", c_uint64),
        ("n_threads", c_uint32),
        ("reserved", c_uint32),
        ("head_tokens", c_uint64),
        ("head_middle_rows", c_uint64),
        ("head_low_rows", c_uint64),
    ]


class DraftingStruct(ctypes.Structure):
    """eb_drafting."""

    _fields_ = [
        ("size", c_uint32),
        ("max", c_uint32),
        ("drafted", c_uint64),
        ("accepted", c_uint64),
        ("pass_ns", c_float),
        ("more_ns", c_float),
        ("hits", c_float * DRAFT_KINDS),
        ("pause", c_uint32 * DRAFT_KINDS),
        ("pauses", c_uint32 * DRAFT_KINDS),
        ("length", c_uint32),
        ("kind", c_uint32),
        ("trial", c_uint32),
        ("reserved", c_uint32),
    ]


class SamplingStruct(ctypes.Structure):
    """eb_sampling."""

    _fields_ = [
        ("size", c_uint32),
        ("temperature", c_float),
        ("top_k", c_uint32),
        ("top_p", c_float),
        ("min_p", c_float),
        ("repetition_penalty", c_float),
        ("repetition_window", c_uint32),
        ("seed", c_uint64),
    ]


_ERROR = POINTER(Error)
_HANDLE = c_void_p
_OUT = POINTER(c_void_p)

# name: (result, arguments). A handle is an opaque pointer.
_PROTOTYPES: dict[str, tuple[object, list[object]]] = {
    "eb_abi_version": (c_uint32, []),
    "eb_version": (c_char_p, []),
    "eb_status_name": (c_char_p, [c_int]),
    "eb_isa_names": (c_char_p, []),
    "eb_isa_pick": (c_char_p, [POINTER(Host), _ERROR]),
    "eb_model_open": (c_int, [POINTER(Host), c_char_p, c_uint64, c_uint64, _OUT, _ERROR]),
    "eb_model_open_memory": (c_int, [POINTER(Host), c_void_p, c_uint64, _OUT, _ERROR]),
    "eb_model_close": (None, [_HANDLE]),
    "eb_model_get_info": (POINTER(ModelInfoStruct), [_HANDLE]),
    "eb_model_section": (c_int, [_HANDLE, c_char_p, _OUT, POINTER(c_uint64)]),
    "eb_model_fingerprint": (c_uint64, [_HANDLE]),
    "eb_model_verify": (c_int, [_HANDLE, _ERROR]),
    "eb_tokenizer_open": (c_int, [POINTER(Host), c_void_p, c_uint64, _OUT, _ERROR]),
    "eb_tokenizer_close": (None, [_HANDLE]),
    "eb_tokenizer_vocab_size": (c_uint32, [_HANDLE]),
    "eb_tokenizer_strips_space": (c_int, [_HANDLE]),
    "eb_tokenize": (
        c_int,
        [_HANDLE, c_char_p, c_size_t, c_int, POINTER(c_int32), c_size_t, POINTER(c_size_t)],
    ),
    "eb_tokenize_ranges": (
        c_int,
        [_HANDLE, c_char_p, c_size_t, POINTER(Range), c_size_t, POINTER(c_int32), c_size_t, POINTER(c_size_t)],
    ),
    "eb_token_bytes": (c_void_p, [_HANDLE, c_int32, POINTER(c_size_t), POINTER(c_int)]),
    "eb_text_open": (c_int, [_HANDLE, POINTER(c_char_p), POINTER(c_size_t), c_size_t, _OUT, _ERROR]),
    "eb_text_close": (None, [_HANDLE]),
    "eb_text_push": (c_int, [_HANDLE, c_int32, _OUT, POINTER(c_size_t), POINTER(c_int)]),
    "eb_text_finish": (c_int, [_HANDLE, _OUT, POINTER(c_size_t)]),
    "eb_adapter_open": (c_int, [_HANDLE, c_void_p, c_uint64, _OUT, _ERROR]),
    "eb_adapter_close": (None, [_HANDLE]),
    "eb_adapter_name": (c_char_p, [_HANDLE]),
    "eb_adapter_fingerprint": (c_uint64, [_HANDLE]),
    "eb_weights_fingerprint": (c_uint64, [_HANDLE]),
    "eb_engine_open": (c_int, [_HANDLE, POINTER(EngineOptions), _OUT, _ERROR]),
    "eb_engine_close": (None, [_HANDLE]),
    "eb_engine_error": (c_char_p, [_HANDLE]),
    "eb_engine_isa": (c_char_p, [_HANDLE]),
    "eb_engine_set_threads": (c_int, [_HANDLE, c_uint32]),
    "eb_eval": (c_int, [_HANDLE, POINTER(Batch)]),
    "eb_eval_states": (c_int, [_HANDLE, POINTER(Batch), POINTER(c_float)]),
    "eb_logits": (POINTER(c_float), [_HANDLE, c_uint32]),
    "eb_sequence_length": (c_uint32, [_HANDLE, c_uint32]),
    "eb_sequence_truncate": (c_int, [_HANDLE, c_uint32, c_uint32]),
    "eb_sequence_copy": (c_int, [_HANDLE, c_uint32, c_uint32, c_uint32]),
    "eb_sequence_save": (
        c_int,
        [_HANDLE, c_uint32, c_uint32, c_uint32, c_void_p, c_size_t, POINTER(c_size_t)],
    ),
    "eb_sequence_load": (c_int, [_HANDLE, c_uint32, c_uint32, c_char_p, c_size_t]),
    "eb_sequence_set_adapter": (c_int, [_HANDLE, c_uint32, _HANDLE]),
    "eb_cancel": (None, [_HANDLE]),
    "eb_cancel_reset": (None, [_HANDLE]),
    "eb_eval_layer": (c_int, [_HANDLE, c_uint32, c_uint32, POINTER(c_float), c_uint32]),
    "eb_engine_stats": (None, [_HANDLE, POINTER(StatsStruct)]),
    "eb_engine_stats_reset": (None, [_HANDLE]),
    "eb_sampler_open": (c_int, [POINTER(Host), c_uint32, POINTER(SamplingStruct), _OUT, _ERROR]),
    "eb_sampler_close": (None, [_HANDLE]),
    "eb_sampler_accept": (None, [_HANDLE, c_int32]),
    "eb_sampler_reach": (c_uint32, [_HANDLE]),
    "eb_sample": (c_int32, [_HANDLE, POINTER(c_float)]),
    "eb_draft_lookup": (
        c_size_t,
        [POINTER(c_int32), c_size_t, POINTER(c_int32), c_size_t, POINTER(c_uint32)],
    ),
    "eb_drafting_init": (c_int, [POINTER(DraftingStruct), c_uint32]),
    "eb_draft": (
        c_uint32,
        [POINTER(DraftingStruct), POINTER(c_int32), c_size_t, POINTER(c_int32), c_uint32],
    ),
    "eb_draft_forced": (c_uint32, [POINTER(DraftingStruct), c_uint32]),
    "eb_draft_record": (None, [POINTER(DraftingStruct), c_uint32, c_uint64]),
    "eb_vocabulary_open": (c_int, [_HANDLE, c_uint32, POINTER(c_int32), c_uint32, _OUT, _ERROR]),
    "eb_vocabulary_close": (None, [_HANDLE]),
    "eb_constraint_open": (c_int, [_HANDLE, c_char_p, c_uint64, _OUT, _ERROR]),
    "eb_constraint_close": (None, [_HANDLE]),
    "eb_constraint_reset": (None, [_HANDLE]),
    "eb_constraint_mask": (c_int, [_HANDLE, POINTER(c_float)]),
    "eb_constraint_accept": (c_int, [_HANDLE, c_int32]),
    "eb_constraint_allowed": (c_uint32, [_HANDLE, POINTER(c_int32), c_uint32]),
    "eb_constraint_sets": (c_int, [_HANDLE, POINTER(c_int32), c_uint32, POINTER(c_uint32)]),
    "eb_constraint_complete": (c_int, [_HANDLE]),
    "eb_constraint_forced": (c_size_t, [_HANDLE, c_char_p, c_size_t]),
    "eb_probe_run": (
        c_int,
        [
            _HANDLE,
            POINTER(c_int32),
            c_uint32,
            POINTER(c_uint32),
            POINTER(c_uint32),
            POINTER(c_int32),
            c_uint32,
        ],
    ),
    "eb_probe_check": (c_int, [_HANDLE, POINTER(c_uint32), _ERROR]),
    "eb_measure_read": (c_int, [POINTER(Host), c_uint32, c_uint64, POINTER(c_double), _ERROR]),
    "eb_measure_int8": (c_int, [POINTER(Host), c_uint32, POINTER(c_double), _ERROR]),
}


def declare(dll: ctypes.CDLL) -> None:
    """Give every function of the library its prototype; AttributeError names one that is missing."""
    for name, (result, arguments) in _PROTOTYPES.items():
        function = getattr(dll, name)
        function.restype = result
        function.argtypes = arguments


def host_table(isa: str | None) -> Host:
    """This process's own libc as an eb_host; `isa` masks the ISA level, None leaves the choice to the library."""
    libc = ctypes.CDLL(None)
    hwcap = hwcap2 = 0
    if hasattr(libc, "getauxval"):
        libc.getauxval.restype = ctypes.c_ulong
        libc.getauxval.argtypes = [ctypes.c_ulong]
        hwcap, hwcap2 = libc.getauxval(_AT_HWCAP), libc.getauxval(_AT_HWCAP2)
    functions = {name: ctypes.cast(getattr(libc, name), c_void_p).value for name in _HOST_FUNCTIONS}
    return Host(
        size=ctypes.sizeof(Host),
        map_private=mmap.MAP_PRIVATE,
        clock_monotonic=time.CLOCK_MONOTONIC if sys.platform != "darwin" else 6,
        hwcap=hwcap,
        hwcap2=hwcap2,
        isa=isa.encode() if isa else None,
        **functions,
    )
