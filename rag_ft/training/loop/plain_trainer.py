"""A SentenceTransformers Trainer that prints nothing, counts texts and saves plain weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformerTrainer
from transformers.trainer_callback import PrinterCallback

from rag_ft.training.loop.checkpoints import discard_unwritable

WEIGHTS = "weights.safetensors"


class PlainTrainer(SentenceTransformerTrainer):
    """The Trainer with checkpoints of plain weights: loading a checkpoint runs no module code.

    Args:
        **kwargs: the arguments of `SentenceTransformerTrainer`.

    Attributes:
        texts: number of texts encoded so far.
    """

    texts = 0

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.remove_callback(PrinterCallback)

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        # A static embedding gets the ids of all texts in one row, with the offset of each text.
        columns = [name.removesuffix("_input_ids") for name in inputs if name.endswith("_input_ids")]
        self.texts += sum(len(inputs.get(f"{name}_offsets", inputs[f"{name}_input_ids"])) for name in columns)
        return super().training_step(model, inputs, *args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        # Copy them, because tied weights share memory, which safetensors does not allow.
        weights = {name: tensor.to("cpu", copy=True) for name, tensor in self.model.state_dict().items()}
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / WEIGHTS)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with discard_unwritable(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"):
            super()._save_checkpoint(*args, **kwargs)

    def _load_from_checkpoint(self, checkpoint_path: str, *args: Any, **kwargs: Any) -> None:
        self.model.load_state_dict(load_file(Path(checkpoint_path) / WEIGHTS))
