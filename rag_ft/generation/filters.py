"""Drop questions that are useless for training and evaluation, each with a reason."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from rag_ft.dataset.dropped import DroppedRow, dropped_row
from rag_ft.dataset.qa_dataset import Passage, QADataset, Query
from rag_ft.dataset.sources import WITHOUT_LLM
from rag_ft.dataset.text.cloze import without_copy
from rag_ft.dataset.text.language import is_other_language
from rag_ft.dataset.text.near_duplicates import near_duplicate_groups
from rag_ft.dataset.text.words import word_count
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

MIN_COPIED_WORDS = 8
"""Minimum number of words of a question that counts as a copy if its passage contains it word for word."""


@dataclass(frozen=True)
class Filters:
    """The settings that decide which questions are kept.

    Attributes:
        shortest: minimum number of words; two characters of a script without spaces count as one.
        longest: maximum number of words.
        round_trip: the retriever that must find a question's passage: `bm25`, `dense`, `both`, `either`, or `none`.
        depth: number of top results that must contain the passage.
        embed_model: the embedding of the dense round trip; any LlamaIndex embedding.

    Raises:
        InputError: if a value is invalid.

    Example:
        >>> from rag_ft import Passage, Query
        >>> from rag_ft.generation import Filters, filter_questions
        >>> passages = {"leave#0": Passage("leave#0", "Leave is booked in HELM by noon.")}
        >>> pairs = [(Query("q", "Where is leave booked?"), "leave#0")]
        >>> kept, dropped = filter_questions(pairs, passages, Filters(shortest=5))
        >>> dropped[0]["query"], dropped[0]["reason"]
        ('Where is leave booked?', 'too short')
    """

    shortest: int = 3
    longest: int = 60
    round_trip: RoundTrip = "bm25"
    depth: int = 20
    embed_model: BaseEmbedding | None = None

    def __post_init__(self) -> None:
        if self.round_trip not in get_args(RoundTrip):
            raise InputError(f"round_trip is {self.round_trip!r}: choose one of {', '.join(get_args(RoundTrip))}")
        if self.depth < 1:
            raise InputError(f"depth is {self.depth}: pass 1 or more")
        if self.round_trip in ("dense", "both", "either") and self.embed_model is None:
            raise InputError(f"the round trip {self.round_trip!r} needs an embedding: pass Filters(embed_model=…)")


def filter_questions(
    pairs: Sequence[Pair],
    passages: dict[str, Passage],
    filters: Filters | None = None,
    *,
    groups: dict[str, int] | None = None,
    show_progress: bool = False,
) -> tuple[list[Pair], list[DroppedRow]]:
    """Keep the questions that make sense on their own and find their passage.

    The filters are, in this order: length; a reference to "the text"; a copy of the passage's words or another language
    than the passage (both only for an LLM's questions); a repeat or near-repeat of an earlier question; and the round
    trip. In the round trip a question is kept if a retriever finds its passage, or a
    near-duplicate of it, among the top passages (Dai et al. 2022, Promptagator).

    Args:
        pairs: questions with the ids of their passages.
        passages: all passages of the corpus.
        filters: the settings; defaults if None.
        groups: passage id -> its group of near-duplicates (`QADataset.near_duplicates`).
        show_progress: show a progress bar for a dense round trip.

    Returns:
        The kept pairs, and a row of `dropped.jsonl` for each dropped one.

    Example:
        >>> from rag_ft import Passage, Query
        >>> from rag_ft.generation import filter_questions
        >>> passages = {"a": Passage("a", "Leave is booked in HELM."), "b": Passage("b", "Badges open doors.")}
        >>> pairs = [(Query("q1", "Where is leave booked?"), "a"), (Query("q2", "What does the text say?"), "b")]
        >>> kept, dropped = filter_questions(pairs, passages)
        >>> [query.text for query, _ in kept], [row["reason"] for row in dropped]
        (['Where is leave booked?'], ['refers to the text'])
    """
    filters = filters or Filters()
    reasons = [reason_to_drop(query, passages[passage], filters) for query, passage in pairs]
    kept, dropped = _keep_without_reason(pairs, reasons)
    kept, repeated = _keep_without_reason(kept, _reasons_of_repeats(kept))
    dropped += repeated
    if kept and filters.round_trip != "none":
        texts = QADataset(passages, {}, {}).passage_texts
        group_numbers: dict[int | str, int] = {}
        group_of = {key: group_numbers.setdefault((groups or {}).get(key, key), len(group_numbers)) for key in texts}
        reasons = _reasons_of_round_trip(kept, texts, group_of, filters, show_progress)
        kept, not_found = _keep_without_reason(kept, reasons)
        dropped += not_found
    return kept, dropped


def _keep_without_reason(pairs: Sequence[Pair], reasons: Sequence[str]) -> tuple[list[Pair], list[DroppedRow]]:
    """Keep the pairs whose reason to drop them is empty."""
    kept: list[Pair] = []
    dropped: list[DroppedRow] = []
    for (query, passage), reason in zip(pairs, reasons, strict=True):
        if reason:
            dropped.append(dropped_row(query, passage, reason))
        else:
            kept.append((query, passage))
    return kept, dropped


def reason_to_drop(query: Query, passage: Passage, filters: Filters) -> str:
    """Return why a question must be dropped, regardless of the others; empty if it is kept."""
    words = word_count(re.sub(r"[\W_]+", " ", query.text))
    if words < filters.shortest and not (query.source == "keywords" and words == 2):
        return "too short"
    if words > filters.longest:
        return "too long"
    if REFERS_TO_TEXT.search(query.text):
        return "refers to the text"
    if query.source not in WITHOUT_LLM:
        if words >= MIN_COPIED_WORDS and _plain(query.text) in _plain(passage.own_text):
            return "copies the passage"
        if is_other_language(query.text, passage.own_text):
            return "in another language than its passage"
    return ""


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _reasons_of_repeats(pairs: Sequence[Pair]) -> list[str]:
    """Return for each pair a reason to drop it if it repeats an earlier one, or else an empty text."""
    reasons: list[str] = []
    first_of: dict[int, str] = {}
    groups = near_duplicate_groups([query.text for query, _ in pairs])
    for (query, _), group in zip(pairs, groups, strict=True):
        plain = _plain(query.text)
        if group in first_of:
            reasons.append("repeated" if plain == first_of[group] else "nearly repeated")
        else:
            first_of[group] = plain
            reasons.append("")
    return reasons


def _reasons_of_round_trip(
    pairs: Sequence[Pair], texts: dict[str, str], group_of: dict[str, int], filters: Filters, show_progress: bool
) -> list[str]:
    """Return for each pair a reason to drop it if its passage is not found, or else an empty text."""
    retrievers = [filters.round_trip] if filters.round_trip in ("bm25", "dense") else ["bm25", "dense"]
    found_by = [_finds_passage(name, pairs, dict(texts), group_of, filters, show_progress) for name in retrievers]
    combine = any if filters.round_trip == "either" else all
    names = {
        "bm25": "BM25",
        "dense": "the embedding",
        "both": "BM25 and the embedding",
        "either": "BM25 or the embedding",
    }
    reason = f"does not find its passage among the first {filters.depth} of {names[filters.round_trip]}"
    return ["" if combine(found) else reason for found in zip(*found_by, strict=True)]


def _finds_passage(
    retriever: str,
    pairs: Sequence[Pair],
    texts: dict[str, str],
    group_of: dict[str, int],
    filters: Filters,
    show_progress: bool,
) -> list[bool]:
    """Return for each question whether a retriever finds its passage, or a near-duplicate of it.

    A search for a sentence of a passage always finds that passage. Therefore a copy of the passage without the sentence
    is added to the corpus, and the copy must be found.
    """
    groups = list(group_of.values())
    members: dict[int, list[int]] = defaultdict(list)
    for position, group in enumerate(groups):
        members[group].append(position)
    copy_of: dict[int, int] = {}
    whole_passages: set[int] = set()  # questions that are the whole text of their passage
    for number, (query, passage) in enumerate(pairs):
        remaining_text = without_copy(query.text, texts[passage]) if query.source in WITHOUT_LLM else None
        if remaining_text == "":
            whole_passages.add(number)
        elif remaining_text is not None:
            copy_of[number] = len(groups)
            texts[f"{passage}\0{number}"] = remaining_text
            groups.append(group_of[passage])
    all_groups = np.array(groups)
    queries = [query.text for query, _ in pairs]
    if retriever == "bm25":
        all_scores = BM25(texts).scores(queries)
    else:
        assert filters.embed_model is not None  # checked by Filters
        all_scores = ExactSearch(filters.embed_model, texts, show_progress).scores(queries)
    found: list[bool] = []
    for number, ((_, passage), scores) in enumerate(zip(pairs, all_scores, strict=True)):
        own_group = group_of[passage]
        own_score = float(np.max(scores[copy_of.get(number, members[own_group])]))
        possible = number not in whole_passages and (retriever != "bm25" or own_score > 0)
        found.append(possible and _is_in_top(all_groups[scores >= own_score], own_group, filters.depth))
    return found


def _is_in_top(groups_as_high: NDArray[np.int64], own_group: int, depth: int) -> bool:
    """Return whether fewer than `depth` other groups score at least as high as a question's own group."""
    # The first few are usually enough to find too many.
    parts = (groups_as_high[: 20 * depth], groups_as_high)
    return len(groups_as_high) < depth or all(len(set(part.tolist()) - {own_group}) < depth for part in parts)


def count_by_reason(dropped: Sequence[DroppedRow]) -> Counter[str]:
    """Count dropped questions by their reason."""
    return Counter(row["reason"].split(":")[0] for row in dropped)
