"""BM25, the yardstick: on some corpora it beats any small embedding."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from rag_ft.dataset.text.language import NAMES, WORD, corpus_language, segmented, stop_words_of
from rag_ft.errors import InputError
from rag_ft.files import read_json, write_json
from rag_ft.retrieval.top_k import top_k

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNK = 1000
"""Queries that are ranked at once: what memory is needed for them beside their results stays small."""


K1, B = 1.2, 0.75
"""Lucene's own. On the collections measured here 1.5 in place of 1.2 moves BM25's nDCG@10 by -.006 to +.006, and mixes
with an embedding less well (covidqa .709 against .715); a B of .4 loses .04 where passages differ in length."""


@dataclass(frozen=True)
class WordScores:
    """What BM25 says of one query.

    Attributes:
        scores: of every passage, shape (passages,); 0 has no common word.
        words: how many different words of the query stand in some passage.
        rarest: share of the passages that do not have the rarest of them.
    """

    scores: NDArray[np.float32]
    words: int = 0
    rarest: float = 0.0


class BM25:
    """BM25 over passages (Lucene's variant, bm25s), with the stemmer and the stop words of their language.

    Languages without spaces between words, and Korean, are matched by pairs of characters instead.

    Args:
        passages: passage id -> text as it is embedded.
        language: ISO 639-1 code; None takes the most frequent language of the passages, and English where it cannot
            be told.

    Example:
        >>> from rag_ft.retrieval.bm25 import BM25
        >>> BM25({"a": "badges and doors", "b": "leave and holidays"}).rank(["which door badge"], k=1)
        [['a']]
        >>> BM25({"a": "Die Ausweise öffnen Türen.", "b": "Der Urlaub ist frei."}, "de").rank(["offene Tür"], k=1)
        [['a']]
    """

    def __init__(self, passages: Mapping[str, str], language: str | None = None) -> None:
        self.language = language or corpus_language(list(passages.values())) or "en"
        self._vocabulary: dict[str, int] = {}
        self._weigh(list(passages), self._numbers(list(passages.values())))

    def _weigh(self, ids: list[str], words: list[NDArray[np.int32]]) -> None:
        """Compute all scores: they depend on how many passages have a word, and so on all passages."""
        import bm25s
        from bm25s.tokenization import Tokenized

        self.ids, self.words = ids, words
        self._index: Any = None
        if any(len(each) for each in words):
            self._index = bm25s.BM25(method="lucene", k1=K1, b=B)
            self._index.index(Tokenized(ids=words, vocab=self._vocabulary), show_progress=False)

    def changed(self, passages: Mapping[str, str], gone: Collection[str] = ()) -> BM25:
        """Another one, after some passages are new or changed and some are gone; the others are not read again.

        Example:
            >>> from rag_ft.retrieval.bm25 import BM25
            >>> BM25({"a": "badges", "b": "leave"}).changed({"c": "a badge"}, gone=["a"]).rank(["badge"], k=3)
            [['c']]
        """
        other = object.__new__(BM25)
        other.language, other._vocabulary = self.language, dict(self._vocabulary)
        words = {key: found for key, found in zip(self.ids, self.words, strict=True) if key not in gone}
        words |= dict(zip(passages, other._numbers(list(passages.values())), strict=True))
        other._weigh(list(words), list(words.values()))
        return other

    @property
    def megabytes(self) -> float:
        """Of its numbers in memory."""
        arrays = [*self.words, *(self._index.scores[name] for name in ("data", "indices", "indptr") if self._index)]
        return sum(each.nbytes for each in arrays) / 1e6

    @cached_property
    def place_of(self) -> dict[str, int]:
        """Passage id -> its place in `ids`."""
        return {key: place for place, key in enumerate(self.ids)}

    def _numbers(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """The words of each text as numbers; new words are added to the vocabulary."""
        stemmer = _stemmer(self.language)
        number_of: dict[str, int] = {}  # by the word as it is written, so that each is stemmed once
        found: list[NDArray[np.int32]] = []
        for start in range(0, len(texts), CHUNK):
            part = self._written(texts[start : start + CHUNK])
            new = [word for word in part.vocab if word not in number_of]
            for word, stem in zip(new, stemmer.stemWords(new) if stemmer else new, strict=True):
                number_of[word] = self._vocabulary.setdefault(stem, len(self._vocabulary))
            numbers = np.array([number_of[word] for word in part.vocab], dtype=np.int32)
            found += [numbers[np.array(places, dtype=np.intp)] for places in part.ids]
        return found

    def _tokens(self, texts: Sequence[str]) -> list[list[str]]:
        """The stems of each text."""
        part, stemmer = self._written(texts), _stemmer(self.language)
        words = list(part.vocab)
        stems = stemmer.stemWords(words) if stemmer else words
        return [[stems[place] for place in places] for places in part.ids]

    def _written(self, texts: Iterable[str]) -> Any:
        """The words of each text as they are written, as places in the vocabulary of these texts."""
        import bm25s

        # Single letters and digits count too: "Form T-9" is the name of a form.
        return bm25s.tokenize(
            [segmented(text) for text in texts],
            stopwords=stop_words_of(self.language),
            token_pattern=WORD,
            show_progress=False,
        )

    def save(self, folder: Path) -> None:
        """Write it into a folder, which must be there: numbers and JSON, nothing that runs when it is read."""
        ends = np.cumsum([len(each) for each in self.words])
        flat = np.concatenate(self.words) if self.words else np.empty(0, dtype=np.int32)
        scores = self._index.scores if self._index is not None else {}
        arrays = {name: scores[name] for name in ("data", "indices", "indptr") if scores}
        np.savez(folder / "numbers.npz", words=flat, ends=ends, **arrays)
        write_json(folder / "words.json", {"language": self.language, "ids": self.ids, "words": list(self._vocabulary)})

    @classmethod
    def load(cls, folder: Path) -> BM25:
        """Read what `save` wrote.

        Raises:
            InputError: where it is not whole.
        """
        import bm25s

        try:
            with np.load(folder / "numbers.npz", allow_pickle=False) as numbers:
                arrays = {name: numbers[name] for name in numbers.files}
            texts = read_json(folder / "words.json")
            found = object.__new__(cls)
            found.language, found.ids = str(texts["language"]), [str(key) for key in texts["ids"]]
            found._vocabulary = {str(word): number for number, word in enumerate(texts["words"])}
            found.words = np.split(arrays["words"], arrays["ends"][:-1]) if found.ids else []
            found._index = None
            if "data" in arrays:
                found._index = bm25s.BM25(method="lucene", k1=K1, b=B)
                found._index.scores = {name: arrays[name] for name in ("data", "indices", "indptr")}
                found._index.scores["num_docs"] = len(found.ids)
                found._index.vocab_dict = found._vocabulary
                found._index.nonoccurrence_array = None  # of other variants of BM25
                found._index.unique_token_ids_set = set(found._vocabulary.values())
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            raise InputError(f"{folder} holds no word index that can be read ({error})") from error
        if len(found.words) != len(found.ids):
            raise InputError(f"{folder} holds no whole word index")
        return found

    def rank(self, queries: Sequence[str], k: int) -> list[list[str]]:
        """The ids of the best k passages of each query; those without a common word are left out."""
        ranked = []
        for found in self.search(queries):
            places = top_k(found.scores, k, above=0.0)
            ranked.append([self.ids[place] for place in places])
        return ranked

    def scores(self, queries: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        """The score of every passage for each query, shape (passages,), in the order of `ids`; 0 has no common word."""
        return (found.scores for found in self.search(queries))

    def search(self, queries: Sequence[str]) -> Iterator[WordScores]:
        """The score of every passage for each query, and what is known of the query's words."""
        for start in range(0, len(queries), CHUNK):
            for words in self._tokens(queries[start : start + CHUNK]):
                known = [self._vocabulary[word] for word in words if word in self._vocabulary]
                if self._index is None or not known:
                    yield WordScores(np.zeros(len(self.ids), dtype=np.float32))
                    continue
                starts = self._index.scores["indptr"]
                found_in = [count for word in set(known) if (count := int(starts[word + 1] - starts[word]))]
                yield WordScores(
                    self._index.get_scores_from_ids(known),
                    len(found_in),
                    1 - min(found_in) / len(self.ids) if found_in else 0.0,
                )


@lru_cache(maxsize=4)
def _stemmer(language: str) -> Any:
    import Stemmer

    name = NAMES.get(language)
    return Stemmer.Stemmer(name) if name in Stemmer.algorithms() else None
