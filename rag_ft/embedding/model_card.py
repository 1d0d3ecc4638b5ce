"""The model card (README.md) of a tuned model: what it is, and how to use it with and without rag_ft."""

from __future__ import annotations

from typing import Any

TEMPLATE = """---
base_model: {base_model}
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags: [sentence-transformers, sentence-similarity, retrieval, llama-index, rag-ft]
---

# {name}

{base_model}, tuned with rag_ft to retrieve passages of one collection.
{summary}

Vectors have {dimension} numbers and length 1. The model reads up to {max_length} tokens of a text. Queries and passages
take these prefixes; without them the vectors are worse, and no error tells you:

| role | prefix |
|---|---|
| query | `{query_prefix!r}` |
| passage | `{passage_prefix!r}` |

## In LlamaIndex, with rag_ft

```python
from llama_index.core import Settings
from rag_ft import FineTunedEmbedding

Settings.embed_model = FineTunedEmbedding.load(MODEL_FOLDER)
```

## With sentence-transformers alone

The prefixes are stored in the model as its prompts; `encode_query` and `encode_document` apply them.

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(MODEL_FOLDER)
queries = model.encode_query(["How do I claim expenses?"], normalize_embeddings=True)
passages = model.encode_document(["Claims are filed within 30 days."], normalize_embeddings=True)
print(queries @ passages.T)
```

## In LlamaIndex, without rag_ft

`HuggingFaceEmbedding` does not read the saved prompts: give it both prefixes.

```python
from llama_index.embeddings.huggingface import HuggingFaceEmbedding

embed_model = HuggingFaceEmbedding(
    MODEL_FOLDER, query_instruction={query_prefix!r}, text_instruction={passage_prefix!r}
)
```
{training}"""


def model_card(record: dict[str, Any]) -> str:
    """Return the model card for the content of a `rag_ft.json`."""
    training = record.get("training", {})
    alpha = training.get("share")
    summary = ""
    if alpha == 0:
        reason = str(training.get("base_stays_because") or "Nothing beat the base model on dev")
        summary = f"\n**{reason[:1].upper()}{reason[1:]}: these are the base model's weights.**\n"
    elif alpha is not None and alpha < 1:
        summary = f"\nThe weights are interpolated between the base model and the tuned model (alpha {alpha:g}).\n"
    return TEMPLATE.format(
        **{
            key: record[key]
            for key in ("base_model", "name", "dimension", "max_length", "query_prefix", "passage_prefix")
        },
        summary=summary,
        training=_training(training, record.get("recipe", {}), record.get("generations", [])),
    )


def _training(training: dict[str, Any], recipe: dict[str, Any], generations: list[dict[str, Any]]) -> str:
    """Describe the training: its pairs, recipe, dev scores and warnings."""
    if not training:
        return ""
    sources = ", ".join(f"{count} {source}" for source, count in training.get("question_styles", {}).items())
    in_brackets = f" ({sources})" if sources else ""
    metric, figures = next(
        (
            (name, training[key])
            for key, name in (("dev_ndcg@10", "nDCG@10"), ("dev_spearman", "Spearman's correlation"))
            if key in training
        ),
        ("nDCG@10", {}),
    )
    rows = [f"| {name} | {score:.3f} |" for name, score in figures.items()]
    lines = ["", "## Training", "", f"{training['pairs']} pairs{in_brackets}, {training['seconds']:.0f} s. Recipe:", ""]
    lines += [f"- {name}: {value}" for name, value in recipe.items()]
    if rows:
        sources = ", ".join(f"{count} {source}" for source, count in training.get("dev_makings", {}).items())
        seen = "".join(f", {count} on {kind} documents" for kind, count in training.get("dev_documents", {}).items())
        questions = f"{training['dev_questions']} dev questions ({sources}{seen})"
        lines += ["", f"{metric} on {questions}, over a pool of passages:", ""]
        lines += [f"| candidate | {metric} |", "|---|---|", *rows]
    lines += _measurements(training, metric)
    if generations:
        names = ", ".join(f"{each.get('name')} ({each.get('pairs')} pairs)" for each in generations)
        lines += ["", f"Tuned before, in this order: {names}."]
    for title, notes in (
        ("Rejected", [f"{name}: {reason}" for name, reason in training.get("refused", {}).items()]),
        ("Warnings", training.get("findings", [])),
    ):
        if notes:
            lines += ["", f"{title}:", "", *(f"- {note}" for note in notes)]
    return "\n".join([*lines, ""])


def _measurements(training: dict[str, Any], metric: str) -> list[str]:
    """List the other measurements of the selected weights."""
    lines: list[str] = []
    if gain := training.get("gain"):
        low, high = gain["ci95"]
        interval = "interval not known" if None in (low, high) else f"95 % interval {low:+.3f} to {high:+.3f}"
        lines += ["", f"The gain on dev is {gain['mean']:+.3f} ({interval})."]
    if slices := training.get("dev_apart"):
        lines += ["", f"| dev questions | number | {metric} of the base | of this model |", "|---|---|---|---|"]
        lines += [
            f"| {name} | {scores['questions']} | {scores['base']:.3f} | {scores['shipped']:.3f} |"
            for name, scores in slices.items()
        ]
    if (base_ndcg := training.get("level")) is not None:
        lines += ["", f"The base has nDCG@10 {base_ndcg:.3f} on questions generated from the passages; it caps alpha."]
    general, alpha = training.get("general", {}), training.get("share") or 0
    if (score := general.get(f"share {alpha:g}")) is not None:
        lines += ["", f"Score on general questions (0 to 1): {score:.3f}, of the base {general['base']:.3f}."]
    if accuracy := training.get("dev_triplet_accuracy"):
        lines += ["", f"Accuracy on dev triplets: {accuracy['shipped']:.3f}, of the base {accuracy['base']:.3f}."]
    if teacher := training.get("teacher"):
        score = next((value for name, value in teacher.items() if name.startswith("dev_")), None)
        scores = "" if score is None else f": {metric} {teacher['student']:.3f}, of the teacher {score:.3f}"
        lines += ["", f"Distilled from {teacher['name']}, and {teacher['times_faster']:g} times as fast{scores}."]
    return lines
