"""Questions that would teach or measure nothing, each dropped with its reason."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from rag_ft.dataset.dropped import DroppedRow, dropped_row
from rag_ft.dataset.qa_dataset import Passage, QADataset, Query
from rag_ft.dataset.sources import WITHOUT_LLM
from rag_ft.dataset.text.cloze import without_copy
from rag_ft.dataset.text.language import is_other_language, word_count
from rag_ft.dataset.text.near_duplicates import near_duplicate_groups
from rag_ft.errors import InputError
from rag_ft.retrieval.bm25 import BM25
from rag_ft.retrieval.exact import ExactSearch

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

Pair = tuple[Query, str]
"""A question and the id of its passage."""

RoundTrip = Literal["bm25", "dense", "both", "either", "none"]

REFERS_TO_TEXT = re.compile(
    # English
    r"\b(?:the|this|that|these) (?:given |above |following |provided )?"
    r"(?:text|passage|paragraph|document|context|excerpt|article|author|sentence|question|answer)s?\b"
    r"|\baccording to (?:the|this) (?:above|given|handbook|manual)\b"
    # German, French, Spanish, Italian, Portuguese, Dutch
    r"|\b(?:de[rmns]|die|das|diese[rmns]?) (?:obigen? |vorliegenden? |folgenden? )?"
    r"(?:text(?:es|s)?|abschnitt(?:s|es)?|absatz(?:es)?|dokuments?|passage|auszug(?:s|es)?|artikels?|autors?)\b"
    r"|\b(?:laut|gemäß) (?:diese[rm]|de[rm]) (?:text|abschnitt|dokument|artikel)\b"
    r"|\b(?:le|la|ce|cet|cette|du) (?:texte|passage|paragraphe|document|extrait|article|auteur)\b"
    r"|\b(?:el|la|este|esta|del) (?:texto|pasaje|párrafo|documento|extracto|artículo|autor|autora)\b"
    r"|\b(?:il|la|questo|questa|del|nel) (?:testo|passaggio|paragrafo|documento|brano|articolo|autore)\b"
    r"|\b(?:o|a|este|esta|do|no) (?:texto|trecho|parágrafo|documento|artigo|autor)\b"
    r"|\b(?:de|het|deze|dit) (?:tekst|passage|alinea|document|fragment|artikel|auteur)\b"
    # Chinese and Japanese
    r"|(?:这|该|本|上述|以上)(?:篇|段|个|份)?(?:文本|文章|段落|文件|文档|材料|作者)"
    r"|この(?:文章|文書|テキスト|段落|記事)",
    re.IGNORECASE,
)

COPIED_WORDS = 8
"""A question that takes so many words or more from its passage, one after the other and nothing else, is a copy."""


@dataclass(frozen=True)
class Filters:
    """Which questions stay.

    Attributes:
        shortest: words; two characters of a script without spaces count as one.
        longest: words.
        round_trip: who must find a question's passage: `bm25`, `dense`, `both`, `either`, or `none`.
        depth: among so many first passages.
        embed_model: the embedding of the dense round trip; any LlamaIndex embedding.

    Example:
        >>> from rag_ft import Passage, Query
        >>> from rag_ft.generation import Filters, filter_questions
        >>> passages = {"leave#0": Passage("leave#0", "Leave is booked in HELM by noon.")}
        >>> asked = [(Query("q", "Where is leave booked?"), "leave#0")]
        >>> kept, dropped = filter_questions(asked, passages, Filters(shortest=5))
        >>> dropped[0]["query"], dropped[0]["reason"]
        ('Where is leave booked?', 'too short')
    """

    shortest: int = 3
    longest: int = 60
    round_trip: RoundTrip = "bm25"
    depth: int = 20
    embed_model: BaseEmbedding | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            InputError: with the setting and its value.
        """
        if self.round_trip not in get_args(RoundTrip):
            raise InputError(f"round_trip is {self.round_trip!r}: give one of {', '.join(get_args(RoundTrip))}")
        if self.depth < 1:
            raise InputError(f"depth is {self.depth}: give 1 or more")
        if self.round_trip in ("dense", "both", "either") and self.embed_model is None:
            raise InputError(f"the round trip {self.round_trip!r} needs an embedding: give Filters(embed_model=…)")


def filter_questions(
    pairs: Sequence[Pair],
    passages: dict[str, Passage],
    filters: Filters | None = None,
    *,
    groups: dict[str, int] | None = None,
    show_progress: bool = False,
) -> tuple[list[Pair], list[DroppedRow]]:
    """Keep the questions that make sense on their own and find their passage.

    The filters, in their order: length; a reference to "the text"; another language than the passage; a copy of the
    passage's words (of an LLM's questions: sentences taken from the passage are trained on without it); a repeat or
    near-repeat of an earlier question; and the round trip: a question stays if the passage that it was made for, or a
    near-duplicate of it, is among the first passages that a retriever finds for it (Dai et al. 2022, Promptagator).

    Args:
        pairs: questions with the ids of their passages.
        passages: all passages of the corpus.
        filters: the settings; the defaults where None.
        groups: passage id -> its group of near-duplicates (`QADataset.near_duplicates`).
        show_progress: a progress bar for a dense round trip.

    Returns:
        The pairs that stay, and a row for `dropped.jsonl` for each one that does not.

    Example:
        >>> from rag_ft import Passage, Query
        >>> from rag_ft.generation import filter_questions
        >>> passages = {"a": Passage("a", "Leave is booked in HELM."), "b": Passage("b", "Badges open doors.")}
        >>> asked = [(Query("q1", "Where is leave booked?"), "a"), (Query("q2", "What does the text say?"), "b")]
        >>> kept, dropped = filter_questions(asked, passages)
        >>> [query.text for query, _ in kept], [row["reason"] for row in dropped]
        (['Where is leave booked?'], ['refers to the text'])
    """
    filters = filters or Filters()
    dropped: list[DroppedRow] = []
    kept: list[Pair] = []
    for query, passage in pairs:
        reason = fault(query, passages[passage], filters)
        if reason:
            dropped.append(dropped_row(query, passage, reason))
        else:
            kept.append((query, passage))
    kept, repeated = _without_repeats(kept)
    dropped += repeated
    if kept and filters.round_trip != "none":
        kept, lost = _round_trip(kept, passages, filters, groups or {}, show_progress)
        dropped += lost
    return kept, dropped


def fault(query: Query, passage: Passage, filters: Filters) -> str:
    """Why a question is of no use by itself; empty where it may be."""
    words = word_count(re.sub(r"[\W_]+", " ", query.text))
    if words < filters.shortest and not (query.source == "keywords" and words == 2):
        return "too short"
    if words > filters.longest:
        return "too long"
    if REFERS_TO_TEXT.search(query.text):
        return "refers to the text"
    if query.source not in WITHOUT_LLM:
        if words >= COPIED_WORDS and _plain(query.text) in _plain(passage.text):
            return "copies the passage"
        if is_other_language(query.text, passage.text):
            return "in another language than its passage"
    return ""


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _without_repeats(pairs: Sequence[Pair]) -> tuple[list[Pair], list[DroppedRow]]:
    kept: list[Pair] = []
    dropped: list[DroppedRow] = []
    seen: dict[int, str] = {}
    groups = near_duplicate_groups([query.text for query, _ in pairs])
    for (query, passage), group in zip(pairs, groups, strict=True):
        plain = _plain(query.text)
        if group in seen:
            reason = "repeated" if plain == seen[group] else "nearly repeated"
            dropped.append(dropped_row(query, passage, reason))
        else:
            seen[group] = plain
            kept.append((query, passage))
    return kept, dropped


def _round_trip(
    pairs: list[Pair],
    passages: dict[str, Passage],
    filters: Filters,
    groups: dict[str, int],
    show_progress: bool,
) -> tuple[list[Pair], list[DroppedRow]]:
    names = [filters.round_trip] if filters.round_trip in ("bm25", "dense") else ["bm25", "dense"]
    found_by = [_finds(name, pairs, passages, filters, groups, show_progress) for name in names]
    combine = any if filters.round_trip == "either" else all
    by = {"bm25": "BM25", "dense": "the embedding", "both": "BM25 and the embedding", "either": "BM25 or the embedding"}
    reason = f"does not find its passage among the first {filters.depth} of {by[filters.round_trip]}"
    kept: list[Pair] = []
    dropped: list[DroppedRow] = []
    for (query, passage), *found in zip(pairs, *found_by, strict=True):
        if combine(found):
            kept.append((query, passage))
        else:
            dropped.append(dropped_row(query, passage, reason))
    return kept, dropped


def _finds(
    retriever: str,
    pairs: Sequence[Pair],
    passages: dict[str, Passage],
    filters: Filters,
    groups: dict[str, int],
    show_progress: bool,
) -> list[bool]:
    """Whether each question finds its passage, or a near-duplicate of it.

    Whoever looks for a sentence finds the passage that it was taken from, and learns nothing. So such a passage
    takes part a second time without the sentence, and that is what must be found.
    """
    texts = QADataset(passages, {}, {}).passage_texts
    numbers = _numbered(groups.get(key, key) for key in texts)
    group_of = dict(zip(texts, numbers, strict=True))
    for_itself: dict[int, int] = {}
    nothing_else: set[int] = set()
    for number, (query, passage) in enumerate(pairs):
        rest = without_copy(query.text, texts[passage]) if query.source in WITHOUT_LLM else None
        if rest == "":
            nothing_else.add(number)
        elif rest is not None:
            for_itself[number] = len(numbers)
            texts[f"{passage}\0{number}"] = rest
            numbers.append(group_of[passage])
    members = _places(numbers[: len(passages)])
    group = np.array(numbers)
    queries = [query.text for query, _ in pairs]
    if retriever == "bm25":
        all_scores = BM25(texts).scores(queries)
    else:
        assert filters.embed_model is not None  # as Filters made sure
        all_scores = ExactSearch(filters.embed_model, texts, show_progress).scores(queries)
    found: list[bool] = []
    for number, ((_, passage), scores) in enumerate(zip(pairs, all_scores, strict=True)):
        wanted = group_of[passage]
        own = float(np.max(scores[for_itself.get(number, members[wanted])]))
        possible = number not in nothing_else and (retriever != "bm25" or own > 0)
        found.append(possible and _is_among_first(group[scores >= own], wanted, filters.depth))
    return found


def _is_among_first(as_high: NDArray[np.int64], wanted: int, depth: int) -> bool:
    """Whether fewer groups than `depth`, other than the wanted one, are among those that score as high or higher."""
    # A part of them is mostly enough to tell that there are too many.
    parts = (as_high[: 20 * depth], as_high)
    return len(as_high) < depth or all(len(set(part.tolist()) - {wanted}) < depth for part in parts)


def _numbered(names: Iterable[Hashable]) -> list[int]:
    """A number for each distinct name, in their order."""
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(name, len(numbers)) for name in names]


def _places(numbers: Sequence[int]) -> dict[int, list[int]]:
    """Where each number stands."""
    places: dict[int, list[int]] = defaultdict(list)
    for place, number in enumerate(numbers):
        places[number].append(place)
    return places


def summary(dropped: Sequence[DroppedRow]) -> Counter[str]:
    """How many questions were dropped for each reason."""
    return Counter(row["reason"].split(":")[0] for row in dropped)
