"""Faster forms of a model beside its weights: ONNX and OpenVINO, in full precision or int8.

sentence-transformers' own exporters need optimum, whose ONNX part does not go with transformers 5. So the encoder alone
is exported, by torch, and put in the place of the one in the model: tokenizer, pooling and prompts stay as they are.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rag_ft.embedding.contract import weights_sha256
from rag_ft.embedding.loading import LOCAL, load_sentence_transformer, model_folder
from rag_ft.errors import InputError, OutsideError, first_line, require_package
from rag_ft.files import read_json, sha256_of, sha256_of_file, write_json, written_beside
from rag_ft.quiet import quiet_libraries

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

Backend = Literal["torch", "onnx", "openvino"]
Run = Callable[[dict[str, "NDArray[np.int64]"]], "NDArray[np.float32]"]

RECORD = "export.json"
OUTPUT = "last_hidden_state"
SUFFIX = {"onnx": ".onnx", "openvino": ".xml"}


def exported_file(folder: Path, backend: Backend, int8: bool) -> Path:
    """Where an export of a model stands."""
    return folder / backend / f"model{'_int8' * int8}{SUFFIX[backend]}"


def export_model(
    model: str | Path, backend: Backend = "onnx", int8: bool = False, calibration: Sequence[str] = ()
) -> Path:
    """Write a faster form of a model into its folder.

    Args:
        model: a model folder of your own.
        backend: `onnx` or `openvino`.
        int8: weights and activations in 8 bits: smaller and mostly faster, and a little less exact. Measure it on your
            questions (`rag-ft export MODEL --int8 --dataset DATASET`).
        calibration: passages like those to come, from which OpenVINO's int8 learns how large activations are.

    Returns:
        The file; `FineTunedEmbedding.load(model, backend=..., int8=...)` uses it.

    Raises:
        InputError: where the folder is none of your own, or the extra is not installed.
        OutsideError: where the model cannot be exported.
    """
    folder = Path(model)
    if not folder.is_dir():
        raise InputError(f"{model} is no model folder: an export is written into one, so save the model first")
    _require(backend)
    if backend == "openvino" and int8:
        require_package("nncf", "openvino", "int8 with OpenVINO")
        if not calibration:
            raise InputError("int8 with OpenVINO needs passages to learn from: give --dataset")
    weights = weights_sha256(folder)
    target = exported_file(folder, backend, int8)
    loaded = load_sentence_transformer(str(folder), device="cpu").eval()
    try:
        with written_beside(folder / backend) as beside, quiet_libraries(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            beside.mkdir()
            for kept in (folder / backend).glob("*") if (folder / backend).is_dir() else ():
                if kept.stem != target.stem and kept.name != RECORD:
                    shutil.copy2(kept, beside / kept.name)
            made = beside / target.name
            if backend == "onnx":
                _to_onnx(loaded, made, int8)
            else:
                _to_openvino(loaded, made, int8, calibration)
            known = {name: entry for name, entry in _record(folder / backend).items() if (beside / name).exists()}
            write_json(beside / RECORD, known | {made.name: {"weights": weights, "sha256": _hash(made)}})
    except (InputError, OutsideError):
        raise
    except Exception as error:
        reason = first_line(error)
        raise OutsideError(f"{folder} cannot be exported to {backend} ({reason}): use the backend 'torch'") from error
    logger.info("exported %s", target)
    return target


def load_exported(name: str, backend: Backend, int8: bool, **settings: Any) -> SentenceTransformer:
    """A model whose encoder is an export.

    Args:
        name: a model folder.
        backend: `onnx` or `openvino`.
        int8: which of the two exports.
        **settings: of `load_sentence_transformer`.

    Raises:
        InputError: where there is no such export, or it was made of other weights.
    """
    folder = model_folder(name)
    file = exported_file(folder or Path(name), backend, int8)
    command = f"rag-ft export {name} --backend {backend}{' --int8' * int8}"
    if folder is None or name == LOCAL:
        raise InputError(f"{name} has no {backend} export: only model folders have them (rag-ft train makes one)")
    if not file.is_file():
        raise InputError(f"{file} does not exist: make it with {command}")
    _require(backend)
    entry = _record(file.parent).get(file.name, {})
    if entry.get("weights") != weights_sha256(folder) or entry.get("sha256") != _hash(file):
        raise InputError(f"{file} was not exported from the weights beside it: make it again with {command}")
    model = load_sentence_transformer(name, device="cpu", **settings)
    run = _onnx_session(file) if backend == "onnx" else _openvino_session(file)
    model[0].model = _encoder(model[0].model, run)
    return model


def _record(folder: Path) -> dict[str, dict[str, str]]:
    """File -> which weights it was exported from, and its own hash."""
    if not (folder / RECORD).exists():
        return {}
    values = read_json(folder / RECORD)
    return {
        name: entry for name, entry in (values if isinstance(values, dict) else {}).items() if isinstance(entry, dict)
    }


def _hash(file: Path) -> str:
    """Of a file, and of the weights that OpenVINO keeps beside it."""
    beside = file.with_suffix(".bin")
    return sha256_of(*(sha256_of_file(each) for each in (file, beside) if each.exists()))


def _require(backend: Backend) -> None:
    for package in ("onnx", "onnxscript") if backend == "onnx" else ("openvino",):
        require_package(package, backend, f"the backend {backend!r}")


def _encoder(original: Any, run: Run) -> Any:
    """What stands in the place of a transformer: the same call, answered by an export."""
    import torch

    class ExportedEncoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config, self.dtype = original.config, torch.float32

        def forward(self, input_ids: Any = None, attention_mask: Any = None, **others: Any) -> dict[str, torch.Tensor]:
            given = {"input_ids": input_ids, "attention_mask": attention_mask, **others}
            arrays = {name: value.numpy() for name, value in given.items() if isinstance(value, torch.Tensor)}
            return {OUTPUT: torch.from_numpy(run(arrays))}

    return ExportedEncoder()


def _example(model: SentenceTransformer) -> dict[str, Any]:
    """Two texts of different length, as the encoder takes them."""
    features = model.preprocess(["A Kittiwake is an expenses claim.", "short"])
    return {name: features[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in features}


def _wrapped(model: SentenceTransformer, names: Sequence[str]) -> Any:
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
    plain = target.with_name("plain.onnx") if int8 else target
    axes = {0: torch.export.Dim("texts", min=1), 1: torch.export.Dim("tokens", min=2)}
    with torch.no_grad():
        program = torch.onnx.export(
            _wrapped(model, list(example)),
            tuple(example.values()),
            input_names=list(example),
            output_names=[OUTPUT],
            dynamic_shapes=(tuple(axes for _ in example),),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(str(plain), external_data=False)
    if int8:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(str(plain), str(target), weight_type=QuantType.QInt8, per_channel=True)
        plain.unlink()


def _to_openvino(model: SentenceTransformer, target: Path, int8: bool, calibration: Sequence[str]) -> None:
    import openvino
    import torch

    example = _example(model)
    with torch.no_grad():
        converted = openvino.convert_model(
            _wrapped(model, list(example)),
            example_input=tuple(example.values()),
            input=[openvino.PartialShape([-1, -1])] * len(example),
        )
    for port, name in zip(converted.inputs, example, strict=True):
        port.get_tensor().set_names({name})
    converted.outputs[0].get_tensor().set_names({OUTPUT})
    if int8:
        converted = _quantized(converted, model, list(example), calibration)
    openvino.save_model(converted, str(target), compress_to_fp16=False)


def _quantized(converted: Any, model: SentenceTransformer, names: Sequence[str], calibration: Sequence[str]) -> Any:
    import nncf

    def arrays(text: str) -> dict[str, Any]:
        features = model.preprocess([text])
        return {name: features[name].numpy() for name in names}

    data = nncf.Dataset(list(calibration)[:300], arrays)
    return nncf.quantize(converted, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=min(300, len(calibration)))


def _onnx_session(file: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    wanted = {each.name for each in session.get_inputs()}

    def run(arrays: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        found = session.run([OUTPUT], {name: value for name, value in arrays.items() if name in wanted})[0]
        return np.asarray(found, dtype=np.float32)

    return run


def _openvino_session(file: Path) -> Run:
    import openvino

    compiled = openvino.Core().compile_model(str(file), "CPU")
    wanted = {port.get_any_name() for port in compiled.inputs}

    def run(arrays: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        found = compiled({name: value for name, value in arrays.items() if name in wanted})[OUTPUT]
        return np.array(found, dtype=np.float32)

    return run
