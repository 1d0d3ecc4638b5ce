"""The README.md of a tuned model: what it is, and how to use it with and without rag_ft."""

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

Vectors have {dimension} numbers and length 1; texts are read up to {max_length} tokens. A query and a passage
take different prefixes, and vectors made without them are worse without any error:

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

The prefixes are in the model as its prompts; `encode_query` and `encode_document` apply them.

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
    """The card of a model, from the content of its `rag_ft.json`."""
    training = record.get("training", {})
    share = training.get("share")
    summary = ""
    if share == 0:
        why = str(training.get("base_stays_because") or "Nothing beat the base model on dev")
        summary = f"\n**{why[:1].upper()}{why[1:]}: these are the base model's weights.**\n"
    elif share is not None and share < 1:
        summary = f"\nThe weights lie between the base model's and the tuned ones (share of the tuned: {share:g}).\n"
    return TEMPLATE.format(
        **{
            key: record[key]
            for key in ("base_model", "name", "dimension", "max_length", "query_prefix", "passage_prefix")
        },
        summary=summary,
        training=_training(training, record.get("recipe", {}), record.get("generations", [])),
    )


def _training(training: dict[str, Any], recipe: dict[str, Any], generations: list[dict[str, Any]]) -> str:
    if not training:
        return ""
    styles = ", ".join(f"{count} {style}" for style, count in training.get("question_styles", {}).items())
    made = f" ({styles})" if styles else ""
    metric, figures = next(
        (
            (name, training[key])
            for key, name in (("dev_ndcg@10", "nDCG@10"), ("dev_spearman", "Spearman's correlation"))
            if key in training
        ),
        ("nDCG@10", {}),
    )
    rows = [f"| {name} | {score:.3f} |" for name, score in figures.items()]
    lines = ["", "## Training", "", f"{training['pairs']} pairs{made}, {training['seconds']:.0f} s. Recipe:", ""]
    lines += [f"- {name}: {value}" for name, value in recipe.items()]
    if rows:
        made = ", ".join(f"{count} {source}" for source, count in training.get("dev_makings", {}).items())
        kinds = "".join(f", {count} on {kind} documents" for kind, count in training.get("dev_documents", {}).items())
        asked = f"{training['dev_questions']} dev questions ({made}{kinds})"
        lines += ["", f"{metric} on {asked}, over a pool of passages:", ""]
        lines += [f"| candidate | {metric} |", "|---|---|", *rows]
    lines += _more(training, metric)
    if generations:
        names = ", ".join(f"{each.get('name')} ({each.get('pairs')} pairs)" for each in generations)
        lines += ["", f"Tuned before, one after the other: {names}."]
    for title, notes in (
        ("Not taken", [f"{name}: {why}" for name, why in training.get("refused", {}).items()]),
        ("What looked wrong", training.get("findings", [])),
    ):
        if notes:
            lines += ["", f"{title}:", "", *(f"- {note}" for note in notes)]
    return "\n".join([*lines, ""])


def _more(training: dict[str, Any], metric: str) -> list[str]:
    """What else was measured of the weights that were chosen."""
    lines: list[str] = []
    if gain := training.get("gain"):
        low, high = gain["ci95"]
        interval = "interval not known" if None in (low, high) else f"95 % interval {low:+.3f} to {high:+.3f}"
        lines += ["", f"The gain on dev is {gain['mean']:+.3f} ({interval})."]
    if apart := training.get("dev_apart"):
        lines += ["", f"| dev questions | number | {metric} of the base | of this model |", "|---|---|---|---|"]
        lines += [
            f"| {kind} | {found['questions']} | {found['base']:.3f} | {found['shipped']:.3f} |"
            for kind, found in apart.items()
        ]
    if (level := training.get("level")) is not None:
        lines += ["", f"The base has nDCG@10 {level:.3f} on questions made of the passages, which bounds the share."]
    general, share = training.get("general", {}), training.get("share") or 0
    if (kept := general.get(f"share {share:g}")) is not None:
        lines += ["", f"How sure it is of general questions (0 to 1): {kept:.3f}, the base {general['base']:.3f}."]
    if accuracy := training.get("dev_triplet_accuracy"):
        lines += ["", f"Dev triplets told apart: {accuracy['shipped']:.3f}, by the base {accuracy['base']:.3f}."]
    if teacher := training.get("teacher"):
        figure = next((value for name, value in teacher.items() if name.startswith("dev_")), None)
        figures = "" if figure is None else f": {metric} {teacher['student']:.3f}, the teacher's {figure:.3f}"
        lines += ["", f"Taught by {teacher['name']}, and {teacher['times_faster']:g} times as fast{figures}."]
    return lines
