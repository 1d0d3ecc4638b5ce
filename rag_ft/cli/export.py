"""`rag-ft export`."""

from __future__ import annotations

from rag_ft.cli import options
from rag_ft.cli.console import begin, say


def export(
    model: options.ModelFolder,
    backend: options.ExportBackend = "onnx",
    int8: options.Int8 = False,
    dataset: options.QualityDataset = None,
    quiet: options.Quiet = False,
) -> None:
    """Export a model to a faster format in its folder, and measure the loss of quality."""
    begin(quiet)
    from rag_ft.dataset.formats.load import load_dataset
    from rag_ft.dataset.splitting import hold_out_dev
    from rag_ft.embedding.backends import export_model
    from rag_ft.embedding.fine_tuned import FineTunedEmbedding
    from rag_ft.embedding.model_spec import ModelSpec
    from rag_ft.evaluation.fidelity import measure_fidelity

    questions = hold_out_dev(load_dataset(dataset)) if dataset is not None else None
    file = export_model(model, backend, int8)
    say(f"{file} ({file.stat().st_size / 1e6:.0f} MB)")
    if questions is None:
        return
    exported = FineTunedEmbedding.load(model, backend=backend, int8=int8)
    original = FineTunedEmbedding.load(ModelSpec(name=model, device="cpu"), precision="fp32")
    say(measure_fidelity(original, exported, questions, "dev"))
