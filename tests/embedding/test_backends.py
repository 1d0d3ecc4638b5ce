"""ONNX and OpenVINO exports: nearly the same vectors, and never those of other weights."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rag_ft import FineTunedEmbedding, InputError, QADataset, open_index, rebuild_index
from rag_ft.cli import app
from rag_ft.dataset import write_beir
from rag_ft.embedding.backends import export_model, exported_file
from rag_ft.embedding.loading import load_sentence_transformer
from rag_ft.embedding.saving import save_model

TEXTS = ["A Kittiwake is an expenses claim.", "short", "Leave is booked in HELM. " * 40]

INSTALLED = {
    "onnx": pytest.mark.skipif(importlib.util.find_spec("onnxscript") is None, reason="pip install 'rag-ft[onnx]'"),
    "openvino": pytest.mark.skipif(
        importlib.util.find_spec("openvino") is None, reason="pip install 'rag-ft[openvino]'"
    ),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "exported"
    save_model(load_sentence_transformer("local", query_prefix="question: ", max_length=128), folder, "local")
    return folder


@pytest.mark.parametrize(
    ("backend", "int8", "least"),
    [
        pytest.param("onnx", False, 0.9999, marks=[INSTALLED["onnx"], pytest.mark.slow]),
        pytest.param("onnx", True, 0.95, marks=[INSTALLED["onnx"], pytest.mark.slow]),
        pytest.param("openvino", False, 0.999, marks=[INSTALLED["openvino"], pytest.mark.slow]),
    ],
)
def test_an_export_gives_the_vectors_of_its_model(model: Path, backend: str, int8: bool, least: float) -> None:
    file = export_model(model, backend, int8)  # type: ignore[arg-type]
    assert file == exported_file(model, backend, int8)  # type: ignore[arg-type]
    torch = FineTunedEmbedding.load(model, precision="fp32")
    exported = FineTunedEmbedding.load(model, backend=backend, int8=int8)
    for one, other in zip(torch.get_text_embedding_batch(TEXTS), exported.get_text_embedding_batch(TEXTS), strict=True):
        assert np.dot(one, other) > least
    assert np.dot(torch.get_query_embedding(TEXTS[0]), exported.get_query_embedding(TEXTS[0])) > least
    assert not torch.contract.differences(exported.contract)
    assert exported.contract.form == ("int8-" + backend if int8 else "")


@INSTALLED["onnx"]
@pytest.mark.slow
def test_an_index_takes_queries_of_an_export(model: Path, tmp_path: Path) -> None:
    from llama_index.core.schema import TextNode

    if not exported_file(model, "onnx", False).exists():
        export_model(model)
    rebuild_index([TextNode(text=text) for text in TEXTS], FineTunedEmbedding.load(model), tmp_path)
    exported = FineTunedEmbedding.load(model, backend="onnx")
    found = open_index(exported, tmp_path).as_retriever(similarity_top_k=1).retrieve("What is a Kittiwake?")
    assert found[0].text == TEXTS[0]


@INSTALLED["onnx"]
@pytest.mark.slow
def test_an_export_of_other_weights_is_refused(model: Path, tmp_path: Path) -> None:
    if not exported_file(model, "onnx", False).exists():
        export_model(model)
    folder = tmp_path / "changed"
    shutil.copytree(model, folder)
    changed = load_sentence_transformer(str(folder))
    next(changed.parameters()).data.mul_(1.01)
    changed.save(str(folder), create_model_card=False)
    with pytest.raises(InputError, match="not exported from the present weights: export it again"):
        FineTunedEmbedding.load(folder, backend="onnx")


def test_a_missing_export_is_an_error_with_its_command(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--backend onnx --int8"):
        FineTunedEmbedding.load(model, backend="onnx", int8=True)
    with pytest.raises(InputError, match="int8 needs the backend"):
        FineTunedEmbedding.load(model, int8=True)
    with pytest.raises(InputError, match="is not a model folder"):
        export_model("local")


def test_openvino_in_8_bits_points_to_onnx(model: Path) -> None:
    for act in (
        lambda: export_model(model, "openvino", int8=True),
        lambda: FineTunedEmbedding.load(model, backend="openvino", int8=True),
    ):
        with pytest.raises(InputError, match="use --backend onnx --int8"):
            act()
    result = CliRunner().invoke(app, ["export", str(model), "--backend", "openvino", "--int8", "--quiet"])
    assert isinstance(result.exception, InputError)


@INSTALLED["onnx"]
@pytest.mark.slow
def test_the_command_shows_the_quality_cost_of_int8(model: Path, dataset: QADataset, tmp_path: Path) -> None:
    data = write_beir(dataset, tmp_path / "data")
    result = CliRunner().invoke(app, ["export", str(model), "--int8", "--dataset", str(data), "--quiet"])
    assert result.exit_code == 0, (result.output, result.exception)
    assert "model_int8.onnx" in result.output.replace("\n", "")
    assert "nDCG@10" in result.output
