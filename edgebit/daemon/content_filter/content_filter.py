"""The filter of one daemon: rules from a file that is read anew when it changes, and the owner's classifier."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from edgebit.daemon.config.safeguards import ContentFilterConfig
from edgebit.daemon.config.watched_file import WatchedFile
from edgebit.daemon.content_filter.classifier import ClassifierFault, Verdict
from edgebit.daemon.content_filter.rules import FILE_MAX_BYTES, NO_RULES, Rules, parse_rules
from edgebit.daemon.content_filter.text_check import RuleMatched, TextCheck
from edgebit.daemon.contract.messages import Refusal

log = logging.getLogger("edgebit.filter")

PROMPT_FILTERED = ("content_filtered", "the prompt holds what this device's owner does not allow")
ANSWER_FILTERED = ("response_filtered", "the answer held what this device's owner does not allow")
FAULT_WORDS = {"refuse": "refused", "allow": "let through"}
PIECE = 4096  # characters of a prompt that are looked at together
BETWEEN_TEXTS = "\n\n"  # of a conversation, as the classifier reads it


class ContentFilter:
    """Off unless configured. Made once; guards are made for each job."""

    def __init__(self, config: ContentFilterConfig) -> None:
        """Raises ConfigError where the rules cannot be read."""
        self._config = config
        self._file = WatchedFile(Path(config.rules), parse_rules, FILE_MAX_BYTES) if config.rules else None
        self.counters: Counter[str] = Counter()

    @property
    def active(self) -> bool:
        """Whether anything is looked at."""
        return self._file is not None or bool(self._config.classifier)

    @property
    def fault(self) -> str | None:
        """Why the file of rules as it is now is not used; None where it is."""
        return self._file.fault if self._file is not None else None

    def reload(self) -> None:
        """Read the rules again if they have changed; wrong ones leave those before in use."""
        if self._file is not None and self._file.reload():
            self.counters["filter_reloaded"] += 1

    def check_prompt(self, texts: Iterable[str]) -> None:
        """Raises Refusal 451 where a rule for prompts matches one of the texts."""
        for text in texts:
            check = TextCheck(self._rules.prompt)
            try:
                for begin in range(0, len(text), PIECE):
                    check.push(text[begin : begin + PIECE])
                check.finish()
            except RuleMatched as matched:
                log.info("a prompt matched %s", matched)
                raise Refusal(451, *PROMPT_FILTERED) from None

    def guard(self, texts: Sequence[str]) -> "AnswerGuard":
        """What an answer's pieces pass through; `texts` are its prompt's, which a classifier begins to read now."""
        return AnswerGuard(self._config, self._rules, texts if self._judges("prompt") else ())

    def describe(self) -> dict[str, Any] | None:
        """For `info`; None where the filter is off."""
        if not self.active:
            return None
        body: dict[str, Any] = {
            "rules_prompt": len(self._rules.prompt),
            "rules_answer": len(self._rules.answer),
            "classifier": self._config.classifier_for if self._config.classifier else None,
        }
        return {**body, "fault": self.fault} if self.fault else body

    @property
    def _rules(self) -> Rules:
        return self._file.content if self._file is not None else Rules(NO_RULES, NO_RULES)

    def _judges(self, place: str) -> bool:
        return bool(self._config.classifier) and self._config.classifier_for in (place, "both")


class AnswerGuard:
    """One answer: push() pieces and finish(), both of which give what may be sent now and raise Refusal 451.

    push() never waits: until a classifier's verdict on the prompt is there, pieces are held. finish() may wait, for
    each verdict that is still missing at most classifier_timeout_s from when it was begun.
    """

    def __init__(self, config: ContentFilterConfig, rules: Rules, prompt: Sequence[str]) -> None:
        self._config = config
        self._check = TextCheck(rules.answer)
        self._prompt = self._begin(BETWEEN_TEXTS.join(prompt)) if prompt else None
        self._waiting: list[str] = []  # pieces, for the verdict on the prompt
        self._held: list[str] | None = [] if self._judges_answers else None

    @property
    def _judges_answers(self) -> bool:
        return bool(self._config.classifier) and self._config.classifier_for in ("answer", "both")

    def push(self, piece: str) -> str:
        """Take what one token added. Raises Refusal."""
        if self._prompt is not None and not self._prompt.ready:
            self._waiting.append(piece)
            return ""
        self._settle_prompt()
        safe = self._checked(lambda: self._take(piece))
        if self._held is None:
            return safe
        self._held.append(safe)
        return ""

    def finish(self) -> str:
        """The answer has ended. Raises Refusal."""
        self._settle_prompt()
        rest = self._checked(lambda: self._take("") + self._check.finish())
        if self._held is None:
            return rest
        answer = "".join((*self._held, rest))
        self._judge(self._begin(answer), *ANSWER_FILTERED)
        return answer

    def close(self) -> None:
        """The job has ended otherwise: no verdict is waited for."""
        if self._prompt is not None:
            self._prompt.close()
            self._prompt = None

    def _take(self, piece: str) -> str:
        waiting, self._waiting = self._waiting, []
        return "".join(self._check.push(each) for each in (*waiting, piece) if each)

    def _settle_prompt(self) -> None:
        verdict, self._prompt = self._prompt, None
        if verdict is not None:
            self._judge(verdict, *PROMPT_FILTERED)

    def _checked(self, step: Callable[[], str]) -> str:
        try:
            return step()
        except RuleMatched as matched:
            log.info("an answer matched %s", matched)
            raise Refusal(451, *ANSWER_FILTERED) from None

    def _begin(self, text: str) -> Verdict:
        return Verdict(self._config.classifier, text, self._config.classifier_timeout_s)

    def _judge(self, verdict: Verdict, code: str, words: str) -> None:
        try:
            allowed = verdict.allowed()
        except ClassifierFault as fault:
            log.error("the classifier failed, so the text is %s: %s", FAULT_WORDS[self._config.classifier_fault], fault)
            if self._config.classifier_fault == "refuse":
                raise Refusal(
                    503, "classifier", "the text could not be judged", retryable=True, retry_after_ms=10_000
                ) from None
            return
        if not allowed:
            raise Refusal(451, code, words)
