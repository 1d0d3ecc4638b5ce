"""The JSON file of LlamaIndex's former `EmbeddingQAFinetuneDataset`."""

from __future__ import annotations

from pathlib import Path

from rag_ft.dataset.qa_dataset import Passage, QADataset, Query
from rag_ft.errors import InputError, UnknownIdError
from rag_ft.files import read_json, write_json


def read_llama_index_json(file: str | Path, split: str = "train") -> QADataset:
    """Read `{"queries": {id: text}, "corpus": {id: text}, "relevant_docs": {query id: [passage ids]}}`.

    Args:
        file: the JSON file.
        split: the split for its questions, since the format has no splits.

    Raises:
        InputError: if the file has another format or names an unknown id.

    Example:
        >>> import json
        >>> import tempfile
        >>> from pathlib import Path
        >>> from rag_ft.dataset import read_llama_index_json
        >>> content = {"queries": {"q1": "Where do I book holidays?"}, "corpus": {"p1": "Leave is booked in HELM."},
        ...            "relevant_docs": {"q1": ["p1"]}}
        >>> file = Path(tempfile.mkdtemp()) / "qa_finetune_dataset.json"
        >>> _ = file.write_text(json.dumps(content))
        >>> read_llama_index_json(file).pairs("train")
        [('q1', 'p1')]
    """
    file = Path(file)
    content = read_json(file)
    keys = ("queries", "corpus", "relevant_docs")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), dict) for key in keys):
        raise InputError(f"{file} is not an EmbeddingQAFinetuneDataset: it needs the objects {', '.join(keys)}")
    for key in ("queries", "corpus"):
        for identifier, text in content[key].items():
            if not isinstance(text, str):
                raise InputError(f"{file}: {key} {identifier!r} is {text!r:.40}, but must be a text")
    relevant = content["relevant_docs"]
    for query, passages in relevant.items():
        if query not in content["queries"]:
            raise UnknownIdError(f"{file}: relevant_docs names the query {query!r}, which is not in queries")
        if not isinstance(passages, list) or not all(isinstance(passage, str) for passage in passages):
            raise InputError(f"{file}: relevant_docs {query!r} is {passages!r:.40}, but must be a list of passage ids")
        for passage in passages:
            if passage not in content["corpus"]:
                raise UnknownIdError(f"{file}: relevant_docs names the passage {passage!r}, which is not in corpus")
    return QADataset(
        passages={key: Passage(key, text) for key, text in content["corpus"].items()},
        queries={key: Query(key, text) for key, text in content["queries"].items()},
        qrels={split: {query: dict.fromkeys(passages, 1) for query, passages in relevant.items() if passages}},
    )


def write_llama_index_json(dataset: QADataset, file: str | Path, split: str = "train") -> Path:
    """Write one split as the JSON of an `EmbeddingQAFinetuneDataset`, with the embedded texts.

    Raises:
        InputError: if the split has no questions.

    Example:
        >>> import json
        >>> import tempfile
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.dataset import write_llama_index_json
        >>> passages = {"p1": Passage("p1", "Leave is booked in HELM.")}
        >>> dataset = QADataset(passages, {"q1": Query("q1", "Where is leave booked?")}, {"train": {"q1": {"p1": 1}}})
        >>> file = write_llama_index_json(dataset, tempfile.mkdtemp() + "/train.json")
        >>> json.loads(file.read_text())["relevant_docs"]
        {'q1': ['p1']}
    """
    file = Path(file)
    qrels = dataset.require(split)
    content = {
        "queries": {query: dataset.queries[query].text for query in qrels},
        "corpus": dataset.passage_texts,
        "relevant_docs": {query: list(relevant) for query, relevant in qrels.items()},
        "mode": "text",
    }
    write_json(file, content)
    return file
