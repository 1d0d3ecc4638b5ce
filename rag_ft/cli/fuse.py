"""`rag-ft fuse`."""

from __future__ import annotations

from rag_ft.cli import options
from rag_ft.cli.console import begin, say
from rag_ft.cli.inputs import named_fields
from rag_ft.errors import InputError


def fuse(
    dataset: options.Dataset,
    model: options.FusedModel,
    device: options.Device = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    field: options.Fields = None,
) -> None:
    """Learn the best mix of a tuned model and BM25 on dev questions, and save it in the model folder.

    An index of `rag-ft run` has its own mix, learned in that run, which takes precedence over the model's.
    """
    show_progress = begin(quiet)
    from rag_ft.dataset.formats.load import load_dataset
    from rag_ft.embedding.contract import read_model_record, write_record_entry
    from rag_ft.embedding.fine_tuned import FineTunedEmbedding
    from rag_ft.embedding.model_spec import ModelSpec
    from rag_ft.evaluation.runs.dev_fusion import learn_fusion_of
    from rag_ft.evaluation.runs.fusion_learning import WEIGHTS

    if not read_model_record(model):
        raise InputError(f"--model {model} is not a model of rag-ft: pass the output folder of rag-ft train or run")
    questions = load_dataset(dataset, "dev", fields=named_fields(field))
    embedding = FineTunedEmbedding.load(ModelSpec(name=model, device=device))
    learned = learn_fusion_of(questions, embedding, seed=seed, show_progress=show_progress)
    write_record_entry(model, "fusion", learned.to_record())
    curve = learned.curves[learned.fusion.method]
    best = curve[WEIGHTS.index(learned.fusion.weight)]
    say(
        f"{learned.fusion}: nDCG@10 {best:.3f} on {learned.questions} dev questions "
        f"(BM25 alone {curve[0]:.3f}, the embedding alone {curve[-1]:.3f})"
    )
