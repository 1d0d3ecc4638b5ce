"""Faster exports of a model: ONNX, in full precision or int8, and OpenVINO.

The exporters of sentence-transformers need optimum, whose ONNX part does not support transformers 5. So torch exports
the encoder alone. The export replaces the encoder of the loaded model, whose tokenizer, pooling and prompts stay.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rag_ft.embedding.contract import weights_sha256
from rag_ft.embedding.loading import LOCAL, load_sentence_transformer, model_folder
from rag_ft.embedding.model_spec import ModelSpec
from rag_ft.errors import InputError, OutsideError, first_line, require_package
from rag_ft.files import read_json, sha256_of, sha256_of_file, write_json, written_beside
from rag_ft.quiet import quiet_libraries

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

Backend = Literal["torch", "onnx", "openvino"]
Session = Callable[[dict[str, "NDArray[np.int64]"]], "NDArray[np.float32]"]

EXPORT_RECORD = "export.json"
OUTPUT = "last_hidden_state"
SUFFIX = {"onnx": ".onnx", "openvino": ".xml"}


def exported_file(folder: Path, backend: Backend, int8: bool) -> Path:
    """Return the path of a model's export."""
    return folder / backend / f"model{'_int8' * int8}{SUFFIX[backend]}"


def export_model(model: str | Path, backend: Backend = "onnx", int8: bool = False) -> Path:
    """Export a model to a faster backend, into its own folder.

    Args:
        model: a local model folder.
        backend: `onnx` or `openvino`.
        int8: store weights and activations in 8 bits, with ONNX only. This is smaller, usually faster and slightly less
            accurate: measure it on your questions (`rag-ft export MODEL --int8 --dataset DATASET`).

    Returns:
        The exported file; `FineTunedEmbedding.load(model, backend=..., int8=...)` uses it.

    Raises:
        InputError: if it is not a local folder, the extra is not installed, or int8 is requested for OpenVINO.
        OutsideError: if the model cannot be exported.

    Example:
        >>> from rag_ft.embedding import export_model
        >>> export_model("models/acme", int8=True)  # doctest: +SKIP
        PosixPath('models/acme/onnx/model_int8.onnx')
    """
    folder = Path(model)
    if not folder.is_dir():
        raise InputError(f"{model} is not a model folder: save the model to a folder first, for the export to go there")
    _check_backend(backend, int8)
    weights = weights_sha256(folder)
    target = exported_file(folder, backend, int8)
    loaded = load_sentence_transformer(str(folder), device="cpu").eval()
    try:
        with written_beside(folder / backend) as temporary, quiet_libraries(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            temporary.mkdir()
            for existing in (folder / backend).glob("*") if (folder / backend).is_dir() else ():
                if existing.stem != target.stem and existing.name != EXPORT_RECORD:
                    shutil.copy2(existing, temporary / existing.name)
            exported = temporary / target.name
            if backend == "onnx":
                _to_onnx(loaded, exported, int8)
            else:
                _to_openvino(loaded, exported)
            others = {
                name: entry for name, entry in _read_exports(folder / backend).items() if (temporary / name).exists()
            }
            write_json(
                temporary / EXPORT_RECORD, others | {exported.name: {"weights": weights, "sha256": _hash(exported)}}
            )
    except (InputError, OutsideError):
        raise
    except Exception as error:
        reason = first_line(error)
        raise OutsideError(f"{folder} cannot be exported to {backend} ({reason}): use the backend 'torch'") from error
    logger.info("exported %s", target)
    return target


def load_exported(spec: ModelSpec, backend: Backend, int8: bool = False) -> SentenceTransformer:
    """Load a model whose encoder is an export, on the CPU.

    Args:
        spec: a model folder, its prefixes and maximum length.
        backend: `onnx` or `openvino`.
        int8: load the 8-bit export.

    Raises:
        InputError: if there is no such export, or it was made from other weights.
    """
    name = str(spec.name)
    folder = model_folder(name)
    file = exported_file(folder or Path(name), backend, int8)
    command = f"rag-ft export {name} --backend {backend}{' --int8' * int8}"
    if folder is None or name == LOCAL:
        raise InputError(f"{name} has no {backend} export: only a model folder (from rag-ft train) can have one")
    _check_format(backend, int8)
    if not file.is_file():
        raise InputError(f"{file} does not exist: run {command}")
    _check_backend(backend, int8)
    entry = _read_exports(file.parent).get(file.name, {})
    if entry.get("weights") != weights_sha256(folder) or entry.get("sha256") != _hash(file):
        raise InputError(f"{file} was not exported from the present weights: export it again with {command}")
    model = replace(spec, device="cpu").load()
    session = _onnx_session(file) if backend == "onnx" else _openvino_session(file)
    model[0].model = _exported_encoder(model[0].model, session)
    return model


def _check_format(backend: Backend, int8: bool) -> None:
    if backend == "openvino" and int8:
        raise InputError("OpenVINO exports are not available in 8 bits: use --backend onnx --int8")


def _check_backend(backend: Backend, int8: bool) -> None:
    """Raise an `InputError` if the export format does not exist or its packages are not installed."""
    _check_format(backend, int8)
    for package in ("onnx", "onnxscript") if backend == "onnx" else ("openvino",):
        require_package(package, backend, f"the backend {backend!r}")


def _read_exports(folder: Path) -> dict[str, dict[str, str]]:
    """Read the hash of each exported file, and of the weights it was made from."""
    if not (folder / EXPORT_RECORD).exists():
        return {}
    values = read_json(folder / EXPORT_RECORD)
    return {
        name: entry for name, entry in (values if isinstance(values, dict) else {}).items() if isinstance(entry, dict)
    }


def _hash(file: Path) -> str:
    """Hash an export, with the weights that OpenVINO stores beside it."""
    weights = file.with_suffix(".bin")
    return sha256_of(*(sha256_of_file(path) for path in (file, weights) if path.exists()))


def _exported_encoder(original: Any, session: Session) -> Any:
    """Return a module that replaces a transformer: it takes the same arguments and runs the export."""
    import torch

    class ExportedEncoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config, self.dtype = original.config, torch.float32

        def forward(self, input_ids: Any = None, attention_mask: Any = None, **others: Any) -> dict[str, torch.Tensor]:
            inputs = {"input_ids": input_ids, "attention_mask": attention_mask, **others}
            arrays = {name: value.numpy() for name, value in inputs.items() if isinstance(value, torch.Tensor)}
            return {OUTPUT: torch.from_numpy(session(arrays))}

    return ExportedEncoder()


def _example(model: SentenceTransformer) -> dict[str, Any]:
    """Return the encoder's inputs for two texts of different length."""
    features = model.preprocess(["A Kittiwake is an expenses claim.", "short"])
    return {name: features[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in features}


def _positional_encoder(model: SentenceTransformer, names: Sequence[str]) -> Any:
    """Wrap a model's encoder so that it takes its inputs by position, as the exporters need."""
    import torch

    class Encoder(torch.nn.Module):
        def __init__(self, encoder: Any) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, *tensors: Any) -> Any:
            return self.encoder(**dict(zip(names, tensors, strict=True)), return_dict=True)[OUTPUT]

    return Encoder(model[0].model).eval()


def _to_onnx(model: SentenceTransformer, target: Path, int8: bool) -> None:
    import torch

    example = _example(model)
    unquantized = target.with_name("plain.onnx") if int8 else target
    axes = {0: torch.export.Dim("texts", min=1), 1: torch.export.Dim("tokens", min=2)}
    with torch.no_grad():
        program = torch.onnx.export(
            _positional_encoder(model, list(example)),
            tuple(example.values()),
            input_names=list(example),
            output_names=[OUTPUT],
            dynamic_shapes=(tuple(axes for _ in example),),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(str(unquantized), external_data=False)
    if int8:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(str(unquantized), str(target), weight_type=QuantType.QInt8, per_channel=True)
        unquantized.unlink()


def _to_openvino(model: SentenceTransformer, target: Path) -> None:
    import openvino
    import torch

    example = _example(model)
    with torch.no_grad():
        converted = openvino.convert_model(
            _positional_encoder(model, list(example)),
            example_input=tuple(example.values()),
            input=[openvino.PartialShape([-1, -1])] * len(example),
        )
    for port, name in zip(converted.inputs, example, strict=True):
        port.get_tensor().set_names({name})
    converted.outputs[0].get_tensor().set_names({OUTPUT})
    openvino.save_model(converted, str(target), compress_to_fp16=False)


def _onnx_session(file: Path) -> Session:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = {port.name for port in session.get_inputs()}

    def run(arrays: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        output = session.run([OUTPUT], {name: value for name, value in arrays.items() if name in names})[0]
        return np.asarray(output, dtype=np.float32)

    return run


def _openvino_session(file: Path) -> Session:
    import openvino

    compiled = openvino.Core().compile_model(str(file), "CPU")
    names = {port.get_any_name() for port in compiled.inputs}

    def run(arrays: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        output = compiled({name: value for name, value in arrays.items() if name in names})[OUTPUT]
        return np.array(output, dtype=np.float32)

    return run
