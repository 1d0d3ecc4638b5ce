"""Find problems of a dataset before training: one line for each, with what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.text.embedded_metadata import keys_without_content, warning_about

MIN_TRAINING_PAIRS = 500
MIN_TEST_QUERIES = 50
MAX_MEDIAN_OVERLAP = 0.8
"""Median word overlap above which questions are reported as easy."""

MAX_FRACTION_OF_ONE_DOCUMENT = 0.3
MIN_DOCUMENTS = 4
"""Minimum number of documents for a warning about one of them: with fewer, each has a large part of the questions."""

USUAL_MAX_TOKENS = 512
TOKENS_PER_WORD = 1.3


def find_warnings(
    dataset: QADataset, median_overlap: Mapping[str, float], passage_words: Sequence[int]
) -> Iterator[str]:
    """Yield one line for each problem of a dataset.

    Args:
        dataset: any dataset.
        median_overlap: question source -> median fraction of a question's content words that are in its passage.
        passage_words: number of words of each passage.
    """
    yield from _too_few(dataset)
    for source, median in median_overlap.items():
        if median > MAX_MEDIAN_OVERLAP:
            yield (
                f"questions from the source {source!r} are easy (median {median:.0%} of their words are in the "
                "passage), and keyword search can answer them: add questions in other words from people or an LLM"
            )
    yield from _one_document(dataset)
    yield from _leaks(dataset)
    yield from _unused(dataset, passage_words)
    yield from _false_negatives(dataset)
    if warning := warning_about(keys_without_content(dataset.passages.values()), len(dataset.passages)):
        yield warning


def _too_few(dataset: QADataset) -> Iterator[str]:
    pairs = max(sum(map(len, dataset.qrels.get("train", {}).values())), len(dataset.scored_pairs))
    if not pairs:
        yield "the dataset has no training questions: generate questions (rag-ft generate) or add pairs"
    elif pairs < MIN_TRAINING_PAIRS:
        yield (
            f"{pairs} training pairs, fewer than {MIN_TRAINING_PAIRS}: a model mostly memorises them and learns little "
            "for other questions; generate more (--questions-per-passage) or add documents"
        )
    test = len(dataset.qrels.get("test", {}))
    if not test:
        yield "the dataset has no test questions to measure an improvement: hold some out (rag-ft generate does)"
    elif test < MIN_TEST_QUERIES:
        yield (
            f"{test} test questions, fewer than {MIN_TEST_QUERIES}: their hit rate is only precise to "
            f"±{1 / test**0.5:.2f}, more than most fine-tuning gains; add questions that people asked (--questions)"
        )
    if pairs and not dataset.qrels.get("dev"):
        yield "the dataset has no dev split to select the model: add one, or training holds one out of train"


def _one_document(dataset: QADataset) -> Iterator[str]:
    counts = Counter(
        document
        for split, qrels in dataset.qrels.items()
        for query in qrels
        for document in dataset.documents_of([query], split)
    )
    questions = sum(map(len, dataset.qrels.values()))
    for document, count in counts.most_common(1):
        if count > MAX_FRACTION_OF_ONE_DOCUMENT * questions and len(dataset.documents) >= MIN_DOCUMENTS:
            yield (
                f"{count / questions:.0%} of the questions are about the document {document[:60]!r}: the model and the "
                "scores would mostly reflect it; add questions about other documents"
            )


def _leaks(dataset: QADataset) -> Iterator[str]:
    test = dataset.qrels.get("test", {})
    training = {query: relevant for name in ("train", "dev") for query, relevant in dataset.qrels.get(name, {}).items()}
    if not test or not training:
        return
    group_of = dataset.near_duplicate_queries(test | training)
    test_groups = {group_of[query] for query in test}
    repeats = [query for query in training if group_of[query] in test_groups]
    if repeats:
        examples = ", ".join(f"{dataset.queries[query].text[:60]!r}" for query in repeats[:2])
        yield (
            f"{len(repeats)} train or dev questions nearly repeat a test question ({examples}): the test would measure "
            "memorisation; remove them"
        )
    seen = {passage for relevant in training.values() for passage in relevant}
    seen_groups = {dataset.near_duplicates[passage] for passage in seen}
    unseen = {passage for relevant in test.values() for passage in relevant} - seen
    copies = sorted(passage for passage in unseen if dataset.near_duplicates[passage] in seen_groups)
    if copies:
        yield (
            f"{len(copies)} test passages nearly repeat a training passage ({copies[0][:60]!r}): they count as unseen, "
            "but training sees their text; remove the copies or move their questions to one split"
        )


def _unused(dataset: QADataset, passage_words: Sequence[int]) -> Iterator[str]:
    long = sum(words * TOKENS_PER_WORD > USUAL_MAX_TOKENS for words in passage_words)
    if long:
        yield (
            f"{long} passages are longer than about {USUAL_MAX_TOKENS} tokens: most models ignore the rest, so it "
            "cannot be found; use smaller chunks (--chunk-size) or a model that reads more (--max-length)"
        )
    used = {query for qrels in dataset.qrels.values() for query, relevant in qrels.items() if relevant}
    unused = len(dataset.queries.keys() - used)
    if unused:
        yield f"{unused} questions are in no split and are not used: add them to qrels/ or remove them"


def _false_negatives(dataset: QADataset) -> Iterator[str]:
    positive_groups: Mapping[str, set[int]] = {query: set() for query in dataset.negatives}
    for qrels in dataset.qrels.values():
        for query in dataset.negatives.keys() & qrels.keys():
            answering = dataset.answering_passages(query, qrels[query])
            positive_groups[query].update(dataset.near_duplicates[passage] for passage in answering)
    false_negatives = [
        query
        for query, passages in dataset.negatives.items()
        for passage in passages
        if dataset.near_duplicates[passage] in positive_groups[query]
    ]
    if false_negatives:
        question = dataset.queries[false_negatives[0]].text[:60]
        yield (
            f"{len(false_negatives)} negatives are, repeat, or contain a passage that answers their question "
            f"({question!r}): they teach the model wrong answers; remove them from negatives.jsonl"
        )
