"""Near copies: which texts say nearly what a holdout input says. Pure: texts in, similarities out.

The measure is SoftTFIDF (Cohen, Ravikumar, Fienberg 2003, "A Comparison of String Metrics for Matching Names"), as a Dice coefficient:
the part of all that two texts say which both of them say, each word once, in any order, weighed by how rare it is. What many inputs
share, such as a template around them, weighs next to nothing, and so is stripped by degrees; what only these two say decides. Words
that look alike (typos, inflections) count by how alike they are, and two numbers as half alike. Of a longer text the best stretch
counts that is as long as the shorter text, so a copy is found inside a prompt, and a copy with politeness around it.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from pytest_touchstone.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    Words = frozenset[str]
    Weigh = Callable[[str], float]

# Chosen by measurement: benchmarks/near_duplicates.py, docs/explanation/near-copies.md.
DEFAULT_THRESHOLD: Final = Settings().leak_threshold

# Below this many words, a text counts as the whole of another only: short lines stand in many prompts for reasons of their own.
MIN_STRETCH: Final = 6
LIKENESS: Final = 0.8  # from here on two words are taken for one that is misspelt or inflected
MIN_LIKE: Final = 4  # characters; shorter words that look alike are other words
NUMBERS: Final = 0.5  # how alike two different numbers are
_LIKE_GAIN: Final = 0.2  # what words that look alike are expected to add at most, so that other pairs need not be looked at
_CELLS: Final = 4_000_000  # similarities computed at once: 32 MB
# Inputs that hold nothing, so that a few real ones say little about what is rare; a suite's own template shows sooner.
_PSEUDO: Final = 10
_PSEUDO_OF_SUITE: Final = 3

_NUMBER: Final = r"\d+(?:[.,:]\d+)*"
# Scripts that put no spaces between words: their words are taken to be pairs of characters, as search engines do.
_UNSPACED: Final = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD: Final = re.compile(rf"{_NUMBER}|[{_UNSPACED}]+|[^\W\d_{_UNSPACED}]+(?:['\u2019][^\W\d_{_UNSPACED}]+)*")
_IS_UNSPACED: Final = re.compile(rf"[{_UNSPACED}]{{2,}}")


@dataclass(frozen=True, kw_only=True)
class Said:
    """What one input or example says: its texts (the input, messages, ...), each compared by itself, and the suite that it is of."""

    suite: str
    texts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Match:
    """A text of `train[train]` (its `text`-th) and one of `holdout[holdout]`, and how near they are, in [0, 1]."""

    train: int
    text: int
    holdout: int
    similarity: float


def words_of(text: str) -> list[str]:
    """The words and numbers of a text that is normalised already, in order; punctuation is none.

    >>> words_of("where is no. 1,204?"), words_of("\u6771\u4eac\u90fd")
    (['where', 'is', 'no', '1,204'], ['\u6771\u4eac', '\u4eac\u90fd'])
    """
    found = cast("list[str]", _WORD.findall(text))
    if text.isascii():
        return found
    return [part for word in found for part in _pairs(word)]


def near_copies(train: Sequence[Said], holdout: Sequence[Said], *, threshold: float = DEFAULT_THRESHOLD) -> list[Match]:
    """The nearest match of each pair of `train` and `holdout` that is at least as near as `threshold` (above 0, at most 1).

    Texts are to be normalised (case, Unicode form, white space). Sorted by `train`, then `holdout`. What is rare is measured over the
    inputs of both sides together, each distinct one once, and within the suites of the pair.
    """
    sides = (_Side.of(train), _Side.of(holdout))
    rarity = _Rarity(sides)
    best: dict[tuple[int, int], Match] = {}
    for suite, taught in sides[0].suites.items():
        for other, held in sides[1].suites.items():
            for one, two, similarity in _compared(taught, held, rarity.of(suite, other), threshold):
                for match in _matches(taught[one], held[two], similarity):
                    pair = (match.train, match.holdout)
                    if pair not in best or similarity > best[pair].similarity:
                        best[pair] = match
    return [best[pair] for pair in sorted(best)]


@dataclass(frozen=True, kw_only=True)
class _Passage:
    """A distinct text of one suite, and where it stands: (index, number of the text)."""

    order: tuple[str, ...]
    words: Words
    places: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class _Side:
    suites: Mapping[str, Sequence[_Passage]]
    documents: Mapping[str, Collection[Words]]

    @classmethod
    def of(cls, said: Sequence[Said]) -> _Side:
        places: defaultdict[str, defaultdict[tuple[str, ...], list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
        documents: defaultdict[str, set[Words]] = defaultdict(set)
        known: dict[str, tuple[str, ...]] = {}
        for index, each in enumerate(said):
            parts = [known.setdefault(text, tuple(words_of(text))) for text in each.texts]
            documents[each.suite].add(frozenset(word for part in parts for word in part))
            for number, part in enumerate(parts):
                if part:
                    places[each.suite][part].append((index, number))
        suites = {
            suite: [_Passage(order=order, words=frozenset(order), places=tuple(where)) for order, where in passages.items()]
            for suite, passages in places.items()
        }
        return cls(suites=suites, documents=documents)


class _Rarity:
    """How much each word weighs: by how few of all inputs hold it, times how few of those of its suite do, relative to a unique word."""

    def __init__(self, sides: Iterable[_Side]) -> None:
        suites: defaultdict[str, set[Words]] = defaultdict(set)
        for side in sides:
            for suite, documents in side.documents.items():
                suites[suite] |= set(documents)
        self._all = _counted({words for documents in suites.values() for words in documents}, _PSEUDO)
        self._suites = {suite: _counted(documents, _PSEUDO_OF_SUITE) for suite, documents in suites.items()}

    def of(self, suite: str, other: str) -> Weigh:
        """The weight of a word in a pair of texts of these suites: above 0."""
        known: dict[str, float] = {}
        count, holding = self._all
        within = [self._suites[suite], self._suites[other]]

        def weigh(word: str) -> float:
            if word not in known:
                shares = [math.log(size / found.get(word, 1)) / math.log(size) for size, found in within]
                known[word] = math.log(count / holding[word]) * min(shares)
            return known[word]

        return weigh


def _counted(documents: Collection[Words], more: int) -> tuple[int, Counter[str]]:
    return len(documents) + more, Counter(word for words in documents for word in words)


def _pairs(word: str) -> Iterator[str]:
    if _IS_UNSPACED.fullmatch(word):
        yield from (word[at : at + 2] for at in range(len(word) - 1))
    else:
        yield word


def _matches(taught: _Passage, held: _Passage, similarity: float) -> Iterator[Match]:
    for train, text in taught.places:
        for holdout, _ in held.places:
            yield Match(train=train, text=text, holdout=holdout, similarity=similarity)


def _compared(taught: Sequence[_Passage], held: Sequence[_Passage], weigh: Weigh, threshold: float) -> Iterator[tuple[int, int, float]]:
    weights = [{word: weigh(word) for word in passage.words} for passage in held]
    for one, two in _candidates(taught, held, weigh, threshold):
        similarity = _similarity(taught[one], held[two], weigh, weights[two], threshold)
        if similarity >= threshold:
            yield one, two, min(similarity, 1.0)


def _candidates(taught: Sequence[_Passage], held: Sequence[_Passage], weigh: Weigh, threshold: float) -> Iterator[tuple[int, int]]:
    """The pairs that share enough, by weight, to be able to reach the threshold.

    Texts of the weights A <= B that share S have 2 S / (A' + B') >= t, where A' and B' are those of the stretches compared, only if
    S >= t / (2 - t) A; words that merely look alike are allowed to add `_LIKE_GAIN`.
    """
    import numpy as np

    least = max(threshold - _LIKE_GAIN, 0.05)
    columns: dict[str, int] = {}
    for passage in (*held, *taught):
        for word in passage.order:
            columns.setdefault(word, len(columns))
    weights = np.array([weigh(word) for word in columns])
    left, right = _matrix(taught, columns), _matrix(held, columns)
    of_left, of_right = left @ weights, right @ weights
    weighted = left.multiply(weights).tocsr()
    step = max(1, _CELLS // max(1, len(taught)))
    for start in range(0, len(held), step):
        shared = (weighted @ right[start : start + step].T).tocoo()
        smaller = np.minimum(of_left[shared.row], of_right[start + shared.col])
        enough = shared.data >= least / (2 - least) * smaller
        pairs = zip(shared.row[enough].tolist(), (shared.col[enough] + start).tolist(), strict=True)
        yield from sorted(pairs)


def _matrix(passages: Sequence[_Passage], columns: Mapping[str, int]) -> Any:  # noqa: ANN401 - scipy's classes are generic to its stubs only
    import numpy as np
    from scipy.sparse import csr_matrix

    found = [columns[word] for passage in passages for word in sorted(passage.words)]
    ends = np.cumsum([0, *(len(passage.words) for passage in passages)])
    return csr_matrix((np.ones(len(found)), found, ends), shape=(len(passages), len(columns)))


def _similarity(one: _Passage, two: _Passage, weigh: Weigh, weights: Mapping[str, float], threshold: float) -> float:
    best = _alike(one.words, two.words, weigh, threshold)
    short, long = sorted((one, two), key=lambda passage: len(passage.order))
    if best < 1 and MIN_STRETCH <= len(short.order) < len(long.order):
        of_short = weights if short is two else {word: weigh(word) for word in short.words}
        stretch = _best_stretch(long.order, len(short.order), of_short, weigh)
        best = max(best, _alike(stretch, short.words, weigh, threshold))
    return best


def _best_stretch(order: Sequence[str], length: int, wanted: Mapping[str, float], weigh: Weigh) -> Words:
    """The `length` words in a row that are nearest to the wanted ones; the first of equals."""
    inside: Counter[str] = Counter()
    shared = total = 0.0
    best, at = -1.0, 0
    of_wanted = sum(wanted.values())
    for end, word in enumerate(order, 1):
        inside[word] += 1
        if inside[word] == 1:
            total += weigh(word)
            shared += wanted.get(word, 0.0)
        if end > length:
            gone = order[end - length - 1]
            inside[gone] -= 1
            if not inside[gone]:
                total -= weigh(gone)
                shared -= wanted.get(gone, 0.0)
        score = shared / (total + of_wanted)
        if end >= length and score > best + 1e-12:
            best, at = score, end - length
    return frozenset(order[at : at + length])


def _alike(one: Words, two: Words, weigh: Weigh, threshold: float) -> float:
    both = one & two
    rests = [sorted(words - both, key=lambda word: (-weigh(word), word)) for words in (one, two)]
    shared = math.fsum(weigh(word) for word in both)
    total = 2 * shared + math.fsum(weigh(word) for rest in rests for word in rest)
    plain = 2 * shared / total
    if plain >= 1 or plain < threshold - _LIKE_GAIN:
        return plain
    return plain + _looking_alike(rests[0], rests[1], weigh) / total


def _looking_alike(one: Sequence[str], two: Sequence[str], weigh: Weigh) -> float:
    """The weight, on both sides, of words that are one word misspelt or inflected, and of numbers; each counts once."""
    from rapidfuzz.fuzz import ratio
    from rapidfuzz.process import extractOne

    numbers = [[word for word in rest if word[0].isdigit()] for rest in (one, two)]
    found = math.fsum(NUMBERS * (weigh(word) + weigh(other)) for word, other in zip(*numbers, strict=False))
    left = [word for word in two if len(word) >= MIN_LIKE and not word[0].isdigit()]
    for word in one:
        if len(word) >= MIN_LIKE and not word[0].isdigit():
            nearest = extractOne(word, left, scorer=ratio, score_cutoff=100 * LIKENESS)
            if nearest is not None:
                found += nearest[1] / 100 * (weigh(word) + weigh(nearest[0]))
                del left[nearest[2]]
    return found
