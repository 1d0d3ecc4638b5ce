"""Chunk overlap and nested chunks: what a tuned model finds, counted by the span that answers.

    python examples/benchmarks/overlap.py run --seeds 0 1
    python examples/benchmarks/overlap.py table

The handbook is cut four times: into chunks of 256 tokens with an overlap of 0, 64 and 128, and into all nodes of a
hierarchy of 1,024, 512 and 128 tokens. Each cut generates its own questions without an LLM and trains on 600
of them. The same test questions are then asked of all: key phrases of single sentences, about documents that no
training saw. A question is answered by the first passage that contains its sentence, so that figures of differently cut
corpora can be compared. Each run adds a line to results/overlap.jsonl, `--label` names the state of the code.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from llama_index.core import Document
from llama_index.core.node_parser import HierarchicalNodeParser, SentenceSplitter
from llama_index.core.schema import MetadataMode, TextNode
from quality import RESULTS, machine

from rag_ft import FineTunedEmbedding, generate_qa_dataset, read_documents, train_model
from rag_ft.dataset.text.cloze import sentences
from rag_ft.generation.without_llm import KeyPhrases

FILE = RESULTS / "overlap.jsonl"
CUTS = ("0", "64", "128", "hierarchical")
PER_DOCUMENT = 6
DEPTH = 10
MAX_PAIRS = 600


def cut(documents: list[Document], how: str) -> list[TextNode]:
    """Cut documents as an app does."""
    if how == "hierarchical":
        return HierarchicalNodeParser.from_defaults(chunk_sizes=[1024, 512, 128]).get_nodes_from_documents(documents)
    return SentenceSplitter(chunk_size=256, chunk_overlap=int(how)).get_nodes_from_documents(documents)


def questions_about(documents: list[Document]) -> list[tuple[str, str, str]]:
    """Return (document, key phrases of a sentence, the sentence) that no other place of the corpus has."""
    texts = {document.metadata["file_name"]: " ".join(document.text.split()) for document in documents}
    found = {document.metadata["file_name"]: sentences(document.text) for document in documents}
    phrases = KeyPhrases([sentence for of_document in found.values() for sentence in of_document])
    everything = "\n".join(texts.values())
    questions = []
    for name, of_document in found.items():
        draw = random.Random(name)
        for sentence in draw.sample(of_document, min(len(of_document), PER_DOCUMENT)):
            question = phrases.query(sentence, draw)
            if question and everything.count(sentence) == 1:
                questions.append((name, question, sentence))
    return questions


def ranks_of(model: FineTunedEmbedding, nodes: list[TextNode], questions: list[tuple[str, str, str]]) -> list[int]:
    """Return the rank of the first passage that contains each sentence; 0 if it is not among the first ten."""
    texts = [node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
    plain = [" ".join(text.split()) for text in texts]
    passages = np.asarray(model.get_text_embedding_batch(texts), dtype=np.float32)
    queries = np.asarray(model.query_embeddings([question for _, question, _ in questions]), dtype=np.float32)
    ranks = []
    for (_, _, sentence), vector in zip(questions, queries, strict=True):
        best = np.argsort(-(passages @ vector), kind="stable")[:DEPTH]
        ranks.append(next((rank for rank, index in enumerate(best, 1) if sentence in plain[index]), 0))
    return ranks


def run(how: str, seed: int, label: str, data: Path) -> dict[str, Any]:
    documents = [
        Document(text=document.text, id_=document.id_, metadata={"file_name": document.metadata["file_name"]},
                 excluded_embed_metadata_keys=["file_name"])
        for document in read_documents(data / "handbook")
    ]  # fmt: skip
    nodes, questions = cut(documents, how), questions_about(documents)
    dataset = generate_qa_dataset(nodes, use_llm=False, seed=seed).dataset
    seen = {
        dataset.passages[key].document
        for split in ("train", "dev")
        for relevant in dataset.qrels[split].values()
        for key in relevant
    }
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        train_model(dataset, Path(folder) / "model", "local", seed=seed, max_pairs=MAX_PAIRS)
        minutes = (time.perf_counter() - started) / 60
        tuned = FineTunedEmbedding.load(Path(folder) / "model")
        share = tuned.record["training"]["share"]
        ranks = {"base": ranks_of(FineTunedEmbedding.load("local"), nodes, questions)}
        ranks["tuned"] = ranks_of(tuned, nodes, questions)
    return {
        "cut": how,
        "seed": seed,
        "label": label,
        "passages": len(nodes),
        "words": sum(len(node.text.split()) for node in nodes),
        "training_pairs": len(dataset.qrels["train"]),
        "alpha": share,
        "minutes": round(minutes, 1),
        "unseen": [name not in seen for name, _, _ in questions],
        "ranks": ranks,
        "machine": machine(),
    }


def table() -> str:
    """Return the results as a Markdown table: on all questions, and on documents that no run of the same code saw."""
    runs: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for line in FILE.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        runs[row["label"]][row["cut"]].append(row)
    titles = ("code", "cut", "passages", "words", "seeds", "alpha", "MRR@10 base", "tuned", "hit@1", "hit@5", "hit@10")
    lines = []
    for label, cuts in runs.items():
        unseen = np.all([row["unseen"] for rows in cuts.values() for row in rows], axis=0)
        for name, mask in (("all", np.ones_like(unseen)), ("on unseen documents", unseen)):
            lines += [f"\n{label}, {int(mask.sum())} questions {name}:\n"]
            lines += ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
            lines += [_line(label, how, rows, mask) for how, rows in cuts.items()]
    return "\n".join(lines)


def _line(label: str, how: str, rows: list[dict[str, Any]], mask: Any) -> str:
    def measured(model: str, depth: int | None = None) -> str:
        ranks = [np.array(row["ranks"][model])[mask] for row in rows]
        if depth is not None:
            return f"{mean(float(((each > 0) & (each <= depth)).mean()) for each in ranks):.3f}"
        values = [np.where(each > 0, 1 / np.maximum(each, 1), 0) for each in ranks]
        return f"{mean(float(each.mean()) for each in values):.3f}"

    cells = [
        label, how, f"{rows[0]['passages']:,}", f"{rows[0]['words']:,}", str(len(rows)),
        ", ".join(f"{row['alpha']:g}" for row in rows), measured("base"), measured("tuned"),
        *(measured("tuned", depth) for depth in (1, 5, 10)),
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("act", choices=["run", "table"])
    parser.add_argument("--cuts", nargs="+", default=CUTS, choices=CUTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--label", default="now")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    for seed in arguments.seeds if arguments.act == "run" else ():
        for how in arguments.cuts:
            row = run(how, seed, arguments.label, arguments.data)
            print({key: value for key, value in row.items() if key not in ("unseen", "ranks", "machine")}, flush=True)
            with FILE.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    print(table())


if __name__ == "__main__":
    main()
