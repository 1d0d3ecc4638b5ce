"""BM25: ranking by the words that a query and a passage share. On some corpora it beats any small embedding model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from rag_ft.clean_text import clean_text
from rag_ft.dataset.text.language import LANGUAGE_NAMES, corpus_language
from rag_ft.dataset.text.scripts import WORD
from rag_ft.dataset.text.words import segmented, stop_words_of
from rag_ft.errors import InputError
from rag_ft.files import read_json, write_json
from rag_ft.retrieval.top_k import top_k

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH_SIZE = 1000
"""Number of texts to tokenise at once, to limit memory."""

K1, B = 1.2, 0.75
"""Lucene's parameters. On the collections measured here, a K1 of 1.5 changes BM25's nDCG@10 by -.006 to +.006, and the
fusion with an embedding gets worse (covidqa .709 against .715). A B of .4 loses .04 if passages differ in length."""

SCORE_ARRAYS = ("data", "indices", "indptr")
"""Arrays of bm25s's sparse score matrix (words x passages)."""


class BM25:
    """BM25 over passages (Lucene's variant, by bm25s), with the stemmer and stop words of their language.

    Korean and languages without spaces between words are matched by pairs of characters instead.

    Args:
        passages: passage id -> text as it is embedded.
        language: ISO 639-1 code. If None, the most frequent language of the passages, or English if it is unclear.

    Attributes:
        ids: the passage ids.
        language: the language in use.

    Example:
        >>> from rag_ft.retrieval import BM25
        >>> BM25({"a": "badges and doors", "b": "leave and holidays"}).rank(["which door badge"], k=1)
        [['a']]
        >>> BM25({"a": "Die Ausweise öffnen Türen.", "b": "Der Urlaub ist frei."}, "de").rank(["offene Tür"], k=1)
        [['a']]
    """

    def __init__(self, passages: Mapping[str, str], language: str | None = None) -> None:
        self.language = language or corpus_language(list(passages.values())) or "en"
        self._vocabulary: dict[str, int] = {}
        self._build(list(passages), self._encode(list(passages.values())))

    def _build(self, ids: list[str], words: list[NDArray[np.int32]]) -> None:
        """Compute all scores. Each depends on how many passages have a word, so any change affects all of them."""
        from bm25s.tokenization import Tokenized

        self.ids, self._words = ids, words
        self._index: Any = None
        if any(map(len, words)):
            self._index = _new_index()
            self._index.index(Tokenized(ids=words, vocab=self._vocabulary), show_progress=False)

    def updated(self, passages: Mapping[str, str], removed: Collection[str] = ()) -> BM25:
        """Return a copy with some passages added, changed or removed. The others are not tokenised again.

        Args:
            passages: new or changed passages.
            removed: ids of the passages to remove.

        Example:
            >>> from rag_ft.retrieval import BM25
            >>> BM25({"a": "badges", "b": "leave"}).updated({"c": "a badge"}, removed=["a"]).rank(["badge"], k=3)
            [['c']]
        """
        copy = object.__new__(BM25)
        copy.language, copy._vocabulary = self.language, dict(self._vocabulary)
        words = {key: encoded for key, encoded in zip(self.ids, self._words, strict=True) if key not in removed}
        words |= dict(zip(passages, copy._encode(list(passages.values())), strict=True))
        copy._build(list(words), list(words.values()))
        return copy

    @property
    def megabytes(self) -> float:
        """Memory of the index, in megabytes."""
        arrays = [*self._words, *(self._index.scores[name] for name in SCORE_ARRAYS if self._index)]
        return sum(array.nbytes for array in arrays) / 1e6

    @cached_property
    def positions(self) -> dict[str, int]:
        """Passage id -> its position in `ids`."""
        return {key: position for position, key in enumerate(self.ids)}

    def _encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return the stems of each text as numbers of the vocabulary. New stems are added to it."""
        number_of: dict[str, int] = {}  # by unstemmed word, so that each is stemmed once
        encoded: list[NDArray[np.int32]] = []
        for start in range(0, len(texts), BATCH_SIZE):
            tokenized = self._tokenize(texts[start : start + BATCH_SIZE])
            new = [word for word in tokenized.vocab if word not in number_of]
            for word, stem in zip(new, self._stem(new), strict=True):
                number_of[word] = self._vocabulary.setdefault(stem, len(self._vocabulary))
            numbers = np.array([number_of[word] for word in tokenized.vocab], dtype=np.int32)
            encoded += [numbers[np.array(ids, dtype=np.intp)] for ids in tokenized.ids]
        return encoded

    def _stem(self, words: list[str]) -> list[str]:
        stemmer = _stemmer(self.language)
        return stemmer.stemWords(words) if stemmer else words

    def _tokenize(self, texts: Iterable[str]) -> Any:
        """Split texts into words, without stemming: bm25s's `Tokenized`, with a vocabulary of these texts alone."""
        import bm25s

        # Single letters and digits count too: "Form T-9" is the name of a form.
        return bm25s.tokenize(
            [segmented(clean_text(text)) for text in texts],
            stopwords=stop_words_of(self.language),
            token_pattern=WORD,
            show_progress=False,
        )

    def save(self, folder: Path) -> None:
        """Write the index into an existing folder, as arrays and JSON, so that loading it never runs code."""
        ends = np.cumsum([len(numbers) for numbers in self._words])
        flat = np.concatenate(self._words) if self._words else np.empty(0, dtype=np.int32)
        arrays = {name: self._index.scores[name] for name in SCORE_ARRAYS} if self._index is not None else {}
        np.savez(folder / "numbers.npz", words=flat, ends=ends, **arrays)
        write_json(folder / "words.json", {"language": self.language, "ids": self.ids, "words": list(self._vocabulary)})

    @classmethod
    def load(cls, folder: Path) -> BM25:
        """Read what `save` wrote.

        Raises:
            InputError: if the index is incomplete or damaged.
        """
        try:
            with np.load(folder / "numbers.npz", allow_pickle=False) as numbers:
                arrays = {name: numbers[name] for name in numbers.files}
            stored = read_json(folder / "words.json")
            loaded = object.__new__(cls)
            loaded.language, loaded.ids = str(stored["language"]), [str(key) for key in stored["ids"]]
            loaded._vocabulary = {str(word): number for number, word in enumerate(stored["words"])}
            loaded._words = np.split(arrays["words"], arrays["ends"][:-1]) if loaded.ids else []
            loaded._index = None
            if "data" in arrays:
                loaded._index = index = _new_index()
                index.scores = {name: arrays[name] for name in SCORE_ARRAYS} | {"num_docs": len(loaded.ids)}
                index.vocab_dict = loaded._vocabulary
                index.nonoccurrence_array = None  # only other variants of BM25 have one
                index.unique_token_ids_set = set(loaded._vocabulary.values())
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            raise InputError(f"{folder} has no readable BM25 index ({error}): delete it to rebuild it") from error
        if len(loaded._words) != len(loaded.ids):
            raise InputError(f"{folder} has an incomplete BM25 index: delete it to rebuild it")
        return loaded

    def rank(self, queries: Sequence[str], k: int) -> list[list[str]]:
        """Return the ids of the best k passages for each query. Passages that have none of its words are left out."""
        return [[self.ids[position] for position in top_k(row, k, above=0.0)] for row in self.scores(queries)]

    def scores(self, queries: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        """Yield the score of every passage for each query, shape (passages,) in the order of `ids`.

        The score is 0 if a passage has no word of the query.
        """
        for start in range(0, len(queries), BATCH_SIZE):
            tokenized = self._tokenize(queries[start : start + BATCH_SIZE])
            stems = self._stem(list(tokenized.vocab))
            for ids in tokenized.ids:
                numbers = [self._vocabulary[stems[word_id]] for word_id in ids if stems[word_id] in self._vocabulary]
                if self._index is None or not numbers:
                    yield np.zeros(len(self.ids), dtype=np.float32)
                else:
                    yield self._index.get_scores_from_ids(numbers)


def _new_index() -> Any:
    import bm25s

    return bm25s.BM25(method="lucene", k1=K1, b=B)


@lru_cache(maxsize=4)
def _stemmer(language: str) -> Any:
    import Stemmer

    name = LANGUAGE_NAMES.get(language)
    return Stemmer.Stemmer(name) if name in Stemmer.algorithms() else None
