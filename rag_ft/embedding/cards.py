"""The cards (README.md) of models and adapters: what they are and how to use them."""

from __future__ import annotations

from typing import Any

from rag_ft.embedding.stored_names import displayed_name
from rag_ft.embedding.training_summary import TrainingSummary


def model_card(record: dict[str, Any]) -> str:
    """Write the card of a model.

    Args:
        record: the content of the model's `rag_ft.json`.
    """
    training = record.get("training", {})
    teacher_scores = (score for name, score in training.get("teacher", {}).items() if name.startswith("dev_"))
    return _render(
        "model_card.md.jinja",
        {"recipe": {}, "generations": []}
        | record
        | {
            "training": training and {"dev_makings": {}, "dev_documents": {}} | training,
            "summary": TrainingSummary.of(record) if training else None,
            "general_score": training.get("general", {}).get(f"share {training.get('share') or 0:g}"),
            "teacher_score": next(teacher_scores, None),
        },
    )


def adapter_card(record: dict[str, Any]) -> str:
    """Write the card of an adapter.

    Args:
        record: the content of the adapter's `rag_ft.json`.
    """
    return _render("adapter_card.md.jinja", record | {"summary": TrainingSummary.of(record)})


def _render(template: str, values: dict[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("rag_ft", "embedding/templates"), trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "repr": repr,
        "displayed": displayed_name,
        "score": lambda value: f"{value:.3f}",
        "counts": lambda counts: ", ".join(f"{count} {name}" for name, count in counts.items()),
    }
    return environment.get_template(template).render(values).rstrip("\n") + "\n"
