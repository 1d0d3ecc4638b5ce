"""rag_ft beside the real llama-index-finetuning, in a virtual environment of its own because of its old pins.

The tests build the environment (minutes, a gigabyte), or use the Python in `RAG_FT_ORIGINAL_PYTHON`.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

PROGRAM = """
import filecmp, warnings
warnings.simplefilter("ignore")
from llama_index.embeddings.adapter import LinearLayer as OldLinear
from llama_index.finetuning import EmbeddingQAFinetuneDataset as OldDataset
from llama_index.finetuning import SentenceTransformersFinetuneEngine as OldEngine
from llama_index.finetuning.types import BaseEmbeddingFinetuneEngine
import torch
from rag_ft import FineTunedEmbedding
from rag_ft.compat import *
from rag_ft.embedding.loading import local_model_folder

corpus = {f"p{i}": f"Form {i} is signed by harbour master {i}." for i in range(12)}
queries = {f"q{i}": f"Who signs form {i}?" for i in range(12)}
old = OldDataset(queries=queries, corpus=corpus, relevant_docs={f"q{i}": [f"p{i}"] for i in range(12)})
ours = EmbeddingQAFinetuneDataset.from_llama_index(old)
assert type(ours.to_llama_index()) is OldDataset and ours.to_llama_index() == old
old.save_json("old.json")
ours.save_json("ours.json")
assert filecmp.cmp("old.json", "ours.json", shallow=False)
assert OldDataset.from_json("ours.json") == old and EmbeddingQAFinetuneDataset.from_json("old.json") == ours

base = FineTunedEmbedding.load("local")
engine = SentenceTransformersFinetuneEngine(old, "local", "m", epochs=1, max_length=32, show_progress_bar=False)
adapter = EmbeddingAdapterFinetuneEngine(old, base, model_output_path="a")
assert isinstance(engine, BaseEmbeddingFinetuneEngine) and isinstance(adapter, BaseEmbeddingFinetuneEngine)
engine.finetune()
adapter.finetune()
assert len(OldEngine(ours, str(local_model_folder()), "o").examples) == 12

vector = torch.tensor(base.get_query_embedding("a form"))
assert torch.equal(OldLinear.load("a")(vector), LinearLayer.load("a")(vector))
made = OldLinear(384, 384, bias=True)
torch.nn.init.normal_(made.linear.weight)
made.save("theirs")
assert torch.equal(made(vector), LinearLayer.load("theirs")(vector))
print("all is well")
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter with the old package installed."""
    if given := os.environ.get("RAG_FT_ORIGINAL_PYTHON"):
        return given
    folder = tmp_path_factory.mktemp("original") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    interpreter = str(folder / ("Scripts" if os.name == "nt" else "bin") / "python")
    install = [interpreter, "-m", "pip", "install", "--quiet"]
    torch = f"torch=={importlib.metadata.version('torch').split('+')[0]}"
    for requirements in ([torch], [f"{REPOSITORY}[local,llama-index-finetuning]"]):
        done = subprocess.run([*install, *requirements], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"pip cannot install {requirements[0]}: {done.stderr.strip().splitlines()[-1][:200]}")
    return interpreter


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_engines_are_instances_of_its_base_class_and_datasets_and_adapters_convert(python: str, tmp_path: Path) -> None:
    done = subprocess.run([python, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("all is well"), done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_environment_has_no_conflict(python: str) -> None:
    done = subprocess.run([python, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
