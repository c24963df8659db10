"""Examples as the tokens that the engine computes for the same text, with labels that say which are learnt.

The engine's own tokenizer and prompt program do it, read from the files that `edgebit convert` will read them from: so
a prompt in training is the prompt on a device, and special tokens that somebody wrote stay text in both.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from edgebit.bundle.prompt_program import Message, PromptProgram, Segment
from edgebit.checkpoint.chat_template.choice import HOW_TO_CHOOSE, added_tokens
from edgebit.checkpoint.chat_template.compiler import compile_chat_template
from edgebit.checkpoint.tokenizer import Kind, read_tokenizer
from edgebit.errors import EngineError, TrainError
from edgebit.runtime.library import Library
from edgebit.runtime.tokenizer import Tokenizer
from edgebit.train.data.examples import Conversation, Example, RecordError, Text
from edgebit.train.rows import IGNORED, Document


class Encoder:
    """Documents of examples, by one tokenizer and chat template."""

    def __init__(self, folder: Path) -> None:
        """Of the tokenizer files in `folder`, a checkpoint's or alone. Raises TokenizerError where they are wrong."""
        read = read_tokenizer(folder)
        jinja = read.chat_template
        self.folder = folder
        self.program: PromptProgram | None = None if jinja is None else compile_chat_template(jinja, read)
        self.section = read.section()
        self.tokenizer = Tokenizer.from_section(Library.load(), self.section)
        self.vocab_size = len(read.tokens)
        self._begin = read.bos_token
        self._end = added_tokens(read).get(read.named_tokens.get("eos_token", ""))
        self._stops = frozenset(read.stop_tokens)
        self._spaced = read.kind == Kind.BYTE_FALLBACK

    def close(self) -> None:
        """Give the tokenizer back."""
        self.tokenizer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def documents(self, example: Example) -> list[Document]:
        """What there is to learn of an example. Raises RecordError where the chat template does not take it."""
        return [self.text(example.text)] if isinstance(example, Text) else self.conversation(example)

    def text(self, text: str) -> Document:
        """A whole text, begin-of-text before and end-of-text after it, where the tokenizer has them."""
        begin = [] if self._begin is None else [self._begin]
        end = [] if self._end is None else [self._end]
        ids = [*begin, *self.tokenizer.encode(text), *end]
        return Document(ids, ids)

    def conversation(self, conversation: Conversation) -> list[Document]:
        """Each answer after the very prompt that the engine makes of the messages before it.

        All in one document where each prompt goes on from the answer before; where not (the template leaves thoughts
        out of earlier answers, or the answer and what is around it make other tokens together), a new one begins.
        Raises RecordError where the template does not take these roles in this order.
        """
        ids: list[int] = []
        labels: list[int] = []
        found: list[Document] = []
        for place, message in enumerate(conversation.messages):
            if message.role != "assistant":
                continue
            prompt, answer = self._turn(conversation.messages[:place], message.content)
            if ids and prompt[: len(ids)] != ids:
                found.append(Document(ids, labels))
                ids, labels = [], []
            labels = labels + [IGNORED] * (len(prompt) - len(ids))
            labels += [IGNORED] * len(answer) if place in conversation.given else answer
            ids = prompt + answer
        found.append(Document(ids, labels))
        return [document for document in found if any(label != IGNORED for label in document.labels)]

    def segments(self, messages: Sequence[Message]) -> list[Segment]:
        """The prompt for an answer to the messages. Raises RecordError where the template does not take them."""
        if self.program is None:
            raise TrainError(f"{self.folder} has no chat template, and the data are conversations. {HOW_TO_CHOOSE}")
        try:
            return self.program.render(messages)
        except EngineError as error:
            raise RecordError("refused by the template", str(error)) from None

    def _turn(self, before: Sequence[Message], answer: str) -> tuple[list[int], list[int]]:
        """The ids of the prompt, and of the answer up to the token that ends it."""
        segments = self.segments(before)
        assert self.program is not None
        begin = self._begin if self.program.add_bos else None
        said = self._said(answer.strip() if "assistant" in self.program.strip else answer)
        prompt = self.tokenizer.encode_segments(segments, begin=begin)
        whole = self.tokenizer.encode_segments([*segments, *said], begin=begin)
        return prompt, self._ended(whole[len(prompt) :] if whole[: len(prompt)] == prompt else self._alone(said))

    def _said(self, answer: str) -> list[Segment]:
        """What the model writes after the prompt: the answer as earlier ones stand there, less what has begun already.

        A prompt may end before an answer's prefix does (Llama 2's space), or go on beyond it (DeepSeek-R1's templates
        open the thoughts).
        """
        assert self.program is not None
        (prefix, suffix), generation = self.program.assistant, self.program.generation
        rest = prefix[len(generation) :] if prefix.startswith(generation) else ""
        begun = generation[len(prefix) :] if generation.startswith(prefix) else ""
        return [(rest, True), (answer.removeprefix(begun), False), (suffix, True)]

    def _alone(self, said: Sequence[Segment]) -> list[int]:
        """Ids of an answer that makes no tokens with what is before it, without the space of a text's first word."""
        if self._spaced:
            line = self.tokenizer.encode("\n")
            ids = self.tokenizer.encode_segments([("\n", False), *said])
            if ids[: len(line)] == line:
                return ids[len(line) :]
        return self.tokenizer.encode_segments(said)

    def _ended(self, answer: list[int]) -> list[int]:
        """Up to the first stop token; where the template writes none after an answer, one is added."""
        for place, token in enumerate(answer):
            if token in self._stops:
                return answer[: place + 1]
        if not self._stops:
            raise TrainError(
                f"{self.folder} names no token that ends an answer: none would ever end. Name an eos_token"
            )
        return [*answer, min(self._stops) if self._end is None else self._end]
