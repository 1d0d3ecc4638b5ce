"""`rag-ft fuse`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from rag_ft.cli.app import app, begin, out
from rag_ft.cli.inputs import named_fields
from rag_ft.cli.options import Dataset, Device, Fields, Quiet, Seed
from rag_ft.errors import InputError


@app.command()
def fuse(
    dataset: Dataset,
    model: Annotated[Path, typer.Option(help="A model folder of rag-ft; what is learned is written into it.")],
    field: Fields = None,
    device: Device = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Learn on dev questions how a tuned model's list is mixed with BM25's, and keep it in the model's folder.

    An index of `rag-ft run` has a mix of its own, learned in that run, which counts before the model's.
    """
    show_progress = begin(quiet)
    from rag_ft.dataset.formats.load import load_dataset
    from rag_ft.embedding.contract import keep_in_record, read_model_record
    from rag_ft.embedding.fine_tuned import FineTunedEmbedding
    from rag_ft.evaluation.runs.dev_fusion import learn_fusion_of
    from rag_ft.evaluation.runs.fusion_learning import WEIGHTS

    if not read_model_record(model):
        raise InputError(f"--model {model} holds no model that rag-ft made: give the folder of rag-ft train or run")
    questions = load_dataset(dataset, "dev", fields=named_fields(field))
    learned = learn_fusion_of(
        questions, FineTunedEmbedding.load(model, device=device), seed=seed, show_progress=show_progress
    )
    keep_in_record(model, "fusion", learned.to_record())
    curve = learned.curves[learned.fusion.method]
    best = curve[WEIGHTS.index(learned.fusion.weight)]
    out.print(
        f"{escape(str(learned.fusion))}: nDCG@10 {best:.3f} on {learned.questions} dev questions "
        f"(BM25 alone {curve[0]:.3f}, the embedding alone {curve[-1]:.3f})",
        highlight=False,
    )
    if learned.by_question is not None:
        out.print(f"a weight for each question: {learned.by_question:.3f} on questions left out", highlight=False)
