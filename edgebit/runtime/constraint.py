"""Answers held to a JSON Schema: which tokens may come next, by a program of edgebit.runtime.json_schema."""

import ctypes
from collections.abc import Sequence
from enum import IntEnum

from edgebit.errors import EngineError
from edgebit.runtime import abi
from edgebit.runtime.abi import TokenSet
from edgebit.runtime.model import Model
from edgebit.runtime.native_object import NativeObject
from edgebit.runtime.tokenizer import Tokenizer

_FORCED_MOST = 256  # bytes looked ahead: more than a draft is ever long


class Vocabulary(NativeObject):
    """A tokenizer's tokens as a trie of their bytes: made once for all constraints. The tokenizer must outlive it."""

    _close_function = "eb_vocabulary_close"

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, stop_tokens: Sequence[int]) -> None:
        """vocab_size: of the logits; stop_tokens: allowed where an answer is complete, and nowhere else."""
        handle, error = ctypes.c_void_p(), abi.Error()
        library = tokenizer.library
        stops = (ctypes.c_int32 * max(len(stop_tokens), 1))(*stop_tokens)
        status = library.dll.eb_vocabulary_open(
            tokenizer.handle, vocab_size, stops, len(stop_tokens), ctypes.byref(handle), ctypes.byref(error)
        )
        library.check(status, error)
        super().__init__(library, handle)
        self.tokenizer = tokenizer
        self.vocab_size = vocab_size

    @classmethod
    def of_model(cls, model: Model, tokenizer: Tokenizer) -> "Vocabulary":
        """That of a model and its own tokenizer."""
        return cls(tokenizer, model.info.vocab_size, model.info.stop_tokens)


class Completeness(IntEnum):
    """Whether an answer may end."""

    INCOMPLETE = 0
    MAY_GO_ON = 1  # it is complete, and may still become longer
    COMPLETE = 2  # nothing but its end may follow


class Constraint(NativeObject):
    """One answer's way through a program. One thread at a time; the vocabulary must outlive it."""

    _close_function = "eb_constraint_close"

    def __init__(self, vocabulary: Vocabulary, program: bytes) -> None:
        """`program` as compile_schema() gives it. Raises EngineError where the vocabulary cannot spell any answer."""
        handle, error = ctypes.c_void_p(), abi.Error()
        library = vocabulary.library
        status = library.dll.eb_constraint_open(
            vocabulary.handle, program, len(program), ctypes.byref(handle), ctypes.byref(error)
        )
        if status == abi.UNSUPPORTED:
            raise EngineError(error.text.decode(errors="replace"))
        library.check(status, error)
        super().__init__(library, handle)
        self.program = program
        self._vocabulary = vocabulary
        self._bytes = ctypes.create_string_buffer(_FORCED_MOST)

    def reset(self) -> None:
        """Go back to the beginning of an answer."""
        self.library.dll.eb_constraint_reset(self.handle)

    def mask(self, logits: "memoryview[float]") -> None:
        """Make the logits, float32 [vocab_size], of tokens that are not allowed now -infinity."""
        row = (ctypes.c_float * self._vocabulary.vocab_size).from_buffer(logits)
        self.library.check(self.library.dll.eb_constraint_mask(self.handle, row))

    def accept(self, token: int) -> None:
        """Go on by one token. Raises EngineError where it is not allowed; the constraint is then as before."""
        if self.library.dll.eb_constraint_accept(self.handle, token) != abi.OK:
            raise EngineError(
                f"token {token} is not what the schema allows here: the model gives no number to any that is"
            )

    def allowed(self, tokens: Sequence[int]) -> int:
        """How many of these tokens, one after the other, are allowed; the constraint stays where it is."""
        ids = (ctypes.c_int32 * max(len(tokens), 1))(*tokens)
        return int(self.library.dll.eb_constraint_allowed(self.handle, ids, len(tokens)))

    def sets(self, tokens: Sequence[int]) -> list[TokenSet]:
        """The tokens allowed now, and after each of `tokens`, which must be allowed in turn; it stays where it is."""
        ids = (ctypes.c_int32 * max(len(tokens), 1))(*tokens)
        kind = ctypes.c_uint32 * ((self._vocabulary.vocab_size + 31) // 32)
        found = (kind * (len(tokens) + 1))()
        place = ctypes.cast(found, ctypes.POINTER(ctypes.c_uint32))
        self.library.check(self.library.dll.eb_constraint_sets(self.handle, ids, len(tokens), place))
        return list(found)

    def completeness(self) -> Completeness:
        """Whether the answer may end here."""
        return Completeness(self.library.dll.eb_constraint_complete(self.handle))

    def forced(self) -> bytes:
        """The next bytes as far as there is only one way on."""
        count = self.library.dll.eb_constraint_forced(self.handle, self._bytes, len(self._bytes))
        return self._bytes.raw[:count]

    def forced_tokens(self) -> list[int]:
        """forced() as the tokenizer splits it: others may spell it too, and the last may be a part of a longer one."""
        text = self.forced()
        return self._vocabulary.tokenizer.encode(text) if text else []


class ConstraintPool:
    """Constraints of one model's answers; those of answers that have ended are kept, with what they found out."""

    def __init__(self, model: Model, tokenizer: Tokenizer, *, kept: int = 4) -> None:
        """kept: programs of which a constraint is kept for the next answer."""
        self._model, self._tokenizer = model, tokenizer
        self._kept = kept
        self._vocabulary: Vocabulary | None = None
        self._free: list[Constraint] = []  # the one used last at the end

    def take(self, program: bytes) -> Constraint:
        """A constraint at the beginning of an answer. Raises EngineError as Constraint()."""
        for constraint in self._free:
            if constraint.program == program:
                self._free.remove(constraint)
                return constraint
        if self._vocabulary is None:
            self._vocabulary = Vocabulary.of_model(self._model, self._tokenizer)
        return Constraint(self._vocabulary, program)

    def give_back(self, constraint: Constraint) -> None:
        """End an answer's use of it."""
        constraint.reset()
        self._free.append(constraint)
        while len(self._free) > self._kept:
            self._free.pop(0).close()

    def close(self) -> None:
        """Close all that were given back."""
        while self._free:
            self._free.pop().close()
        if self._vocabulary is not None:
            self._vocabulary.close()
            self._vocabulary = None
