"""What every test shares: no hub, a small dataset, the demo's documents, and the shared corpora where there are any."""

import json
import os
import shutil
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    # Threads that wait for each other's cores slow a training down by far more than the one core that each has left.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

import pytest
from fakes.browser import browser, chromium  # noqa: F401
from fakes.files import write_lines
from hypothesis import HealthCheck, settings
from strict_skips import pytest_addoption, pytest_sessionfinish, pytest_terminal_summary  # noqa: F401

from rag_ft import QADataset, cut_into_nodes, generate_qa_dataset, read_documents
from rag_ft.dataset import read_questions

# A busy machine draws its examples slowly; that is no fault of what is tested. Whoever runs the suite to see whether a
# change broke something gets the same examples each time; `--hypothesis-profile explore` draws new ones.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same examples", settings.get_profile("explore"), derandomize=True)
settings.load_profile("same examples")

REPOSITORY = Path(__file__).parent.parent
DOCUMENTS = 12


@pytest.fixture
def beir_folder(tmp_path: Path) -> Path:
    """A valid BEIR folder: 12 documents of 2 passages, a question on each; train 8, dev 2, test 2."""
    folder = tmp_path / "dataset"
    (folder / "qrels").mkdir(parents=True)
    write_lines(
        folder / "corpus.jsonl",
        [
            {
                "_id": f"d{document}#{place}",
                "title": f"Form T-{document}",
                "text": f"Part {place} of form T-{document} is signed by the master of harbour {document}.",
                "doc_id": f"d{document}",
            }
            for document in range(DOCUMENTS)
            for place in range(2)
        ],
    )
    write_lines(
        folder / "queries.jsonl",
        [{"_id": f"q{document}", "text": f"Who signs T-{document}?"} for document in range(DOCUMENTS)],
    )
    for split, documents in (("train", range(8)), ("dev", range(8, 10)), ("test", range(10, 12))):
        lines = [f"q{document}\td{document}#0\t1" for document in documents]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The corpora of the benchmarks: `RAG_FT_DATA`, or `shared/data` beside the checkout."""
    folder = Path(os.environ.get("RAG_FT_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing: set RAG_FT_DATA to the folder of the corpora")
    return folder


@pytest.fixture(scope="session")
def acme() -> Path:
    """The demo: `documents/` and `questions.jsonl`."""
    return REPOSITORY / "examples" / "acme_policies"


@pytest.fixture(scope="session")
def acme_people(acme: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the demo's with its 16 documents about people and the questions on them: enough to train on."""
    folder = tmp_path_factory.mktemp("acme_people")
    shutil.copytree(acme / "documents" / "people", folder / "documents" / "people")
    lines = (acme / "questions.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    here = [line for line in lines if all(name.startswith("people/") for name in json.loads(line)["documents"])]
    (folder / "questions.jsonl").write_text("".join(here), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def dataset(acme_people: Path) -> QADataset:
    """Questions about some of the demo's policies, made without a model; the hand-written ones are the test."""
    nodes = cut_into_nodes(read_documents(acme_people / "documents"))
    questions = read_questions(acme_people / "questions.jsonl")
    return generate_qa_dataset(nodes, use_llm=False, questions=questions).dataset
