"""Training without human questions: the gain of each question source and filter on human test questions.

    python examples/benchmarks/unlabelled.py covidqa scifact --source none --round-trip bm25
    python examples/benchmarks/unlabelled.py covidqa --source mixed --unseen-documents

Questions are generated from the passages (`none`: sentences and headings; `local`: by the local LLM; `mixed`: both),
filtered, and trained on. The model is evaluated on the collection's human test questions for several alphas. Training
sees all documents, or with --unseen-documents only those without a test question. --passages keeps the relevant
passages and so many random others, for quick comparisons. Each run adds a line to
examples/benchmarks/results/unlabelled.jsonl.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np
from quality import RESULTS, machine

from rag_ft import QADataset, load_dataset
from rag_ft.dataset.dropped import DroppedRow
from rag_ft.dataset.sources import KEY_PHRASES
from rag_ft.embedding.encoding import encode
from rag_ft.embedding.fine_tuned import FineTunedEmbedding
from rag_ft.embedding.loading import load_sentence_transformer
from rag_ft.evaluation.metrics import HEADLINE, metrics_per_query
from rag_ft.generation import LocalLLM, QuestionOptions
from rag_ft.generation.filters import Filters, Pair, count_by_reason, filter_questions
from rag_ft.generation.llm_questions import questions_from_llm
from rag_ft.generation.without_llm import questions_without_llm
from rag_ft.training.examples.pairs import pair_examples
from rag_ft.training.loop.trainer import run_trainer
from rag_ft.training.recipe import recipe_for
from rag_ft.training.selection.weights import copy_weights, interpolate_weights

ALPHAS = (0.2, 0.35, 0.5, 1.0)


def subset(dataset: QADataset, passages: int | None) -> QADataset:
    """Keep the passages that answer test questions, and a number of random others."""
    test = dataset.require("test")
    if passages is None:
        return QADataset(dataset.passages, dataset.queries, {"test": test})
    relevant = {passage for grades in test.values() for passage in grades}
    rest = [passage for passage in dataset.passages if passage not in relevant]
    keep = relevant | set(random.Random(5).sample(rest, min(len(rest), passages)))
    return QADataset({key: p for key, p in dataset.passages.items() if key in keep}, dataset.queries, {"test": test})


def questions(corpus: QADataset, source: str, journal: Path, per_passage: int, seed: int) -> list[Pair]:
    """Generate questions from a source, unfiltered."""
    passages = list(corpus.passages.values())
    pairs: list[Pair] = []
    if source != "local":
        generated = questions_without_llm(passages, per_passage, seed)
        pairs += [pair for pair in generated if pair[0].source != KEY_PHRASES]
    if source != "none":
        asked = questions_from_llm(
            passages, LocalLLM(), seed=seed, question_options=QuestionOptions(journal=journal, questions_per_passage=1)
        )
        pairs += asked.pairs
    return pairs


def ndcg(model: object, dataset: QADataset) -> float:
    """Return nDCG@10 on the test questions, by exact search."""
    test = dataset.require("test")
    ids = list(dataset.passage_texts)
    queries = encode(model, [dataset.queries[query].text for query in test], "query")
    passages = encode(model, list(dataset.passage_texts.values()), "document")
    top = np.argsort(-(queries @ passages.T), axis=1, kind="stable")[:, :10]
    rankings = {query: [ids[place] for place in row] for query, row in zip(test, top, strict=True)}
    return float(metrics_per_query(rankings, test, [HEADLINE])[HEADLINE].mean())


def run(collection: str, arguments: argparse.Namespace) -> dict[str, object]:
    dataset = subset(load_dataset(arguments.data / collection), arguments.passages)
    corpus = dataset
    if arguments.unseen_documents:
        tested = dataset.documents_of(dataset.qrels["test"], "test")
        rest = {key: p for key, p in dataset.passages.items() if p.document not in tested}
        corpus = QADataset(rest, dataset.queries, {})
    journal = arguments.journals / f"{collection}.jsonl"
    pairs = questions(corpus, arguments.source, journal, arguments.sentences, arguments.seed)
    boilerplate = corpus.boilerplate
    filters = Filters(
        round_trip=arguments.round_trip,
        depth=arguments.depth,
        embed_model=FineTunedEmbedding.load("local") if arguments.round_trip in ("dense", "both", "either") else None,
    )
    dropped: list[DroppedRow] = []
    if arguments.round_trip == "off":
        kept = pairs
    else:
        answerable = [pair for pair in pairs if pair[1] not in boilerplate]
        kept, dropped = filter_questions(answerable, corpus.passages, filters, groups=corpus.near_duplicates)
    train = corpus.with_questions(
        {query.id: query for query, _ in kept}, {"train": {query.id: {passage: 1} for query, passage in kept}}
    )
    model = load_sentence_transformer("local")
    base = copy_weights(model)
    before = ndcg(model, dataset)
    recipe = recipe_for(model, len(kept), generated=True, seed=arguments.seed)
    data = pair_examples(train, recipe, arguments.max_pairs)
    started = time.monotonic()
    run_trainer(model, data, recipe)
    seconds = time.monotonic() - started
    tuned = copy_weights(model)
    after = {}
    for alpha in ALPHAS:
        model.load_state_dict(interpolate_weights(base, tuned, alpha))
        after[str(alpha)] = round(ndcg(model, dataset), 4)
    settings = {name: str(value) for name, value in vars(arguments).items() if name not in ("data", "journals")}
    return {
        "collection": collection, "settings": settings, "passages": len(dataset.passages), "made": len(pairs),
        "kept": len(kept), "trained_on": len(data), "dropped": dict(count_by_reason(dropped)), "base": round(before, 4),
        "by_share": after, "training_seconds": round(seconds), "machine": machine(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collections", nargs="+")
    parser.add_argument("--source", choices=["none", "local", "mixed"], default="none")
    parser.add_argument("--round-trip", choices=["off", "none", "bm25", "dense", "both", "either"], default="bm25")
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--sentences", type=int, default=1, help="number of sentences from each passage")
    parser.add_argument("--max-pairs", type=int)
    parser.add_argument("--passages", type=int, help="number of random passages beside the relevant ones")
    parser.add_argument("--unseen-documents", action="store_true")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument(
        "--journals", type=Path, default=Path("/tmp/rag_ft-journals"), help="folder for the local LLM's answers"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    for collection in arguments.collections:
        result = run(collection, arguments)
        print(json.dumps({name: value for name, value in result.items() if name != "machine"}), flush=True)
        with (RESULTS / "unlabelled.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
