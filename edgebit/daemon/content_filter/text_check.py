"""Looks for rules in a text that comes in pieces, and lets go only what can no longer be part of a match."""

from edgebit.daemon.content_filter.folding import Folder
from edgebit.daemon.content_filter.rules import Phrase, RuleSet
from edgebit.daemon.content_filter.word_automaton import ROOT


class RuleMatched(Exception):
    """The text holds what the rule in `line` of the file forbids."""

    def __init__(self, line: int) -> None:
        super().__init__(f"the rule in line {line}")
        self.line = line


def is_word_character(character: str) -> bool:
    """Whether a word goes on with it: letters, digits, marks and _ of any script."""
    return character.isalnum() or ("a" + character).isidentifier()


class TextCheck:
    """push() pieces, then finish(); both give the text that may be sent, and raise RuleMatched.

    Whether a text matches does not hang on its pieces, and no part of a match is ever given out.
    """

    def __init__(self, rules: RuleSet) -> None:
        self._rules = rules
        self._folder = Folder()
        self._held = ""  # the text that was taken and not yet given out
        self._length = 0  # of all text that was taken
        self._folded = ""  # the end of the folded text: what regexes may still need, and one character before it
        self._places: list[int] = []  # of each of these, in the text
        self._context = 0  # how many of these are there for \\b alone
        self._state = ROOT
        self._undecided: list[tuple[int, Phrase]] = []  # words that hold if no word character follows, with their place
        self._recent: list[tuple[str, int]] = []  # the last folded characters, as many as a phrase can have, and one

    def push(self, piece: str) -> str:
        """Take a piece of the text; gives what may be sent now, which may be nothing, or of pieces before."""
        if not len(self._rules):
            return piece
        self._take(self._folder.push(piece, self._length))
        self._length += len(piece)
        self._held += piece
        self._check_regexes(last=False)
        return self._give(self._safe_place())

    def finish(self) -> str:
        """The text has ended; gives the rest."""
        if not len(self._rules):
            return ""
        self._take(self._folder.finish())
        if self._undecided:
            raise RuleMatched(self._undecided[0][1].line)
        self._check_regexes(last=True)
        return self._give(self._length)

    def _take(self, characters: list[tuple[str, int]]) -> None:
        automaton, phrases = self._rules.automaton, self._rules.phrases
        for character, place in characters:
            if self._undecided:
                if not is_word_character(character):
                    raise RuleMatched(self._undecided[0][1].line)
                self._undecided = []
            self._state = automaton.step(self._state, character)
            self._recent.append((character, place))
            for number in automaton.words_at(self._state):
                self._found(phrases[number])
            if len(self._recent) > 2 * (automaton.longest + 1):
                del self._recent[: -automaton.longest - 1]
            if self._rules.regexes:
                self._folded += character
                self._places.append(place)

    def _found(self, phrase: Phrase) -> None:
        """A phrase ends with the last character taken."""
        if not phrase.whole_words:
            raise RuleMatched(phrase.line)
        begin = len(self._recent) - len(phrase.text)
        before = self._recent[begin - 1][0] if begin > 0 else ""
        if before and is_word_character(before) and is_word_character(phrase.text[0]):
            return
        if not is_word_character(phrase.text[-1]):
            raise RuleMatched(phrase.line)
        self._undecided.append((self._recent[begin][1], phrase))

    def _check_regexes(self, *, last: bool) -> None:
        """Matches that end before the text's present end: of others it is not known whether they hold."""
        if not self._rules.regexes:
            return
        end = len(self._folded)
        for rule in self._rules.regexes:
            for match in rule.pattern.compiled.finditer(self._folded, self._context):
                if match.end() < end or last:
                    raise RuleMatched(rule.line)
        # What begins before this place was tried with all it can match and the character after it.
        settled = end - self._rules.width
        if settled > self._context:
            self._folded = self._folded[settled - 1 :]
            self._places = self._places[settled - 1 :]
            self._context = 1

    def _safe_place(self) -> int:
        """Up to where the text holds nothing that may become a part of a match."""
        places = [self._length, *(place for place, _ in self._undecided)]
        if (unsettled := self._folder.unsettled) is not None:
            places.append(unsettled)
        if depth := self._rules.automaton.depth[self._state]:
            places.append(self._recent[-depth][1])
        if len(self._places) > self._context:
            places.append(self._places[self._context])
        return min(places)

    def _give(self, place: int) -> str:
        count = len(self._held) - (self._length - place)
        given, self._held = self._held[:count], self._held[count:]
        return given
