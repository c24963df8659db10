"""How the next token is drawn from logits."""

import ctypes
from dataclasses import dataclass

from edgebit.runtime import abi
from edgebit.runtime.library import Library
from edgebit.runtime.native_object import NativeObject


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the next token is drawn; the defaults are greedy.

    A temperature of 0 takes the likeliest token; top_k 0, top_p 1, min_p 0 and repetition_penalty 1 are off.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    repetition_window: int = 64
    seed: int = 0


class Sampler(NativeObject):
    """Draws tokens from logits; the same seed and logits give the same tokens on every device."""

    _close_function = "eb_sampler_close"

    def __init__(self, library: Library, vocab_size: int, params: SamplingParams) -> None:
        struct = abi.SamplingStruct(
            size=ctypes.sizeof(abi.SamplingStruct),
            temperature=params.temperature,
            top_k=params.top_k,
            top_p=params.top_p,
            min_p=params.min_p,
            repetition_penalty=params.repetition_penalty,
            repetition_window=params.repetition_window,
            seed=params.seed,
        )
        handle, error = ctypes.c_void_p(), abi.Error()
        status = library.dll.eb_sampler_open(
            ctypes.byref(library.host),
            vocab_size,
            ctypes.byref(struct),
            ctypes.byref(handle),
            ctypes.byref(error),
        )
        library.check(status, error)
        super().__init__(library, handle)
        self.vocab_size = vocab_size
        self._penalised = params.repetition_penalty != 1

    def accept(self, token: int) -> None:
        """Put a token of the prompt into the repetition window."""
        self.library.dll.eb_sampler_accept(self.handle, token)

    def reach(self, *, ahead: int = 0) -> int:
        """How many of the highest logits sample() looks at: the engine need not compute others. 0: all of them.

        ahead: count in that so many tokens more may have been drawn by then
        """
        reach = int(self.library.dll.eb_sampler_reach(self.handle))
        return reach + ahead if reach and self._penalised else reach

    def sample(self, logits: "memoryview[float]") -> int:
        """The next token for logits, float32 [vocab_size], which are not changed."""
        row = (ctypes.c_float * self.vocab_size).from_buffer(logits)
        return int(self.library.dll.eb_sample(self.handle, row))
