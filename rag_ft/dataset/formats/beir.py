"""Read and write a dataset as a BEIR folder."""

from __future__ import annotations

import shutil
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from rag_ft.dataset.qa_dataset import SPLITS, Passage, QADataset, Qrels, Query, ScoredPair
from rag_ft.errors import InputError, UnknownIdError
from rag_ft.files import read_json, read_jsonl, read_lines, write_json, write_jsonl, write_text, written_beside

HEADER = "query-id\tcorpus-id\tscore"
NEGATIVES = "negatives.jsonl"
GIVEN = "given"
SCORED_PAIRS = "scored_pairs.jsonl"
OWN_FILES = {"corpus.jsonl", "queries.jsonl", "qrels", "dataset.json", "dropped.jsonl", NEGATIVES, SCORED_PAIRS}
"""Files and folders that `write_beir` replaces. Others (a README, the decisions of a review) are kept."""


def read_beir(folder: str | Path) -> QADataset:
    """Read a BEIR folder: `corpus.jsonl`, `queries.jsonl` and `qrels/*.tsv`.

    Two files are optional: `negatives.jsonl` (`{"query-id", "corpus-id", "source"}`) and `scored_pairs.jsonl`
    (`{"query", "passage", "score"}`, with a score from 0 to 1).

    Raises:
        InputError: if a file is missing, a line is broken, an id is repeated, or a qrels line names an unknown id. The
            message names the file and the line.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from rag_ft.dataset import read_beir
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "corpus.jsonl").write_text('{"_id": "p1", "text": "Leave is booked in HELM."}')
        >>> _ = (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "Where do I book holidays?"}')
        >>> (folder / "qrels").mkdir()
        >>> _ = (folder / "qrels" / "test.tsv").write_text("query-id\\tcorpus-id\\tscore\\nq1\\tp1\\t1\\n")
        >>> read_beir(folder)
        QADataset(1 passages of 1 documents; questions: test 1)
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a dataset folder (it needs corpus.jsonl, queries.jsonl and qrels/)")
    passages = _read_corpus(folder / "corpus.jsonl")
    queries = _read_queries(folder / "queries.jsonl")
    files = sorted((folder / "qrels").glob("*.tsv"))
    if not files:
        raise InputError(f"{folder / 'qrels'} has no .tsv file: a dataset needs qrels/train.tsv or qrels/test.tsv")
    order = {name: position for position, name in enumerate(SPLITS)}
    files.sort(key=lambda file: (order.get(file.stem, len(order)), file.stem))
    qrels = {file.stem: _read_qrels(file, queries, passages) for file in files}
    info = folder / "dataset.json"
    negatives, sources = _read_negatives(folder / NEGATIVES, queries, passages)
    return QADataset(
        passages,
        queries,
        qrels,
        read_json(info) if info.exists() else {},
        negatives,
        _read_scored_pairs(folder / SCORED_PAIRS),
        sources,
    )


def check_output(folder: str | Path) -> Path:
    """Raise an `InputError` if a dataset would overwrite something else."""
    folder = Path(folder)
    if folder.is_file():
        raise InputError(f"{folder} is a file: choose another folder for the dataset")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "corpus.jsonl").exists():
        raise InputError(f"{folder} is not empty, is not a dataset and is not overwritten: choose another folder")
    return folder


def write_beir(dataset: QADataset, folder: str | Path, dropped: list[dict[str, Any]] | None = None) -> Path:
    """Write a dataset as a BEIR folder. Once complete, it replaces an older dataset there. Other files are kept.

    Args:
        dataset: any dataset.
        folder: where to write it.
        dropped: rows for `dropped.jsonl`: dropped pairs with reasons.

    Raises:
        InputError: if the folder contains something other than a dataset.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.dataset import write_beir
        >>> passages = {"p1": Passage("p1", "Leave is booked in HELM.")}
        >>> dataset = QADataset(passages, {"q1": Query("q1", "Where do I book holidays?")}, {"test": {"q1": {"p1": 1}}})
        >>> folder = write_beir(dataset, Path(tempfile.mkdtemp()) / "dataset")
        >>> sorted(path.name for path in folder.iterdir())
        ['corpus.jsonl', 'qrels', 'queries.jsonl']
    """
    folder = check_output(folder)
    with written_beside(folder) as target:
        target.mkdir()
        write_jsonl(target / "corpus.jsonl", (_passage_row(passage) for passage in dataset.passages.values()))
        write_jsonl(target / "queries.jsonl", (_query_row(query) for query in dataset.queries.values()))
        (target / "qrels").mkdir()
        for split in dataset.splits:
            lines = [
                f"{query}\t{passage}\t{grade}"
                for query, relevant in dataset.qrels[split].items()
                for passage, grade in relevant.items()
            ]
            write_text(target / "qrels" / f"{split}.tsv", "\n".join([HEADER, *lines]) + "\n")
        if dropped is not None:
            write_jsonl(target / "dropped.jsonl", dropped)
        if dataset.info:
            write_json(target / "dataset.json", dataset.info)
        if any(dataset.negatives.values()):
            write_jsonl(target / NEGATIVES, _negative_rows(dataset))
        if dataset.scored_pairs:
            write_jsonl(target / SCORED_PAIRS, (vars(pair) for pair in dataset.scored_pairs))
        for other in folder.iterdir() if folder.is_dir() else []:
            if other.name not in OWN_FILES:
                _copy(other, target / other.name)
    return folder


def _copy(source: Path, target: Path) -> None:
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target, follow_symlinks=False)


def _passage_row(passage: Passage) -> dict[str, str]:
    row = {"_id": passage.id, "title": passage.title, "text": passage.text, "doc_id": passage.document}
    return row | ({"content": passage.content} if passage.content else {})


def _query_row(query: Query) -> dict[str, Any]:
    optional = {
        "style": query.source, "answer": query.answer, "evidence": query.evidence, "one_answer": query.one_answer
    }  # fmt: skip
    return {"_id": query.id, "text": query.text} | {key: value for key, value in optional.items() if value}


def _negative_rows(dataset: QADataset) -> Iterator[dict[str, str]]:
    for query, passages in dataset.negatives.items():
        for passage in passages:
            source = dataset.negative_sources.get(query, {}).get(passage, GIVEN)
            yield {"query-id": query, "corpus-id": passage, "source": source}


def _read_id(row: dict[str, Any], file: Path, number: int, used: Container[str]) -> str:
    identifier = row.get("_id")
    if isinstance(identifier, int):
        identifier = str(identifier)
    if not isinstance(identifier, str) or not identifier:
        raise InputError(f'{file}:{number}: no "_id": each line needs a non-empty string as its "_id"')
    if any(character in identifier for character in "\t\r\n"):
        raise InputError(f"{file}:{number}: the id {identifier!r} has a tab or a line break: use another id")
    if identifier in used:
        raise InputError(f"{file}:{number}: the id {identifier!r} was used before: ids must be unique")
    return identifier


def _read_text(row: dict[str, Any], key: str, file: Path, number: int) -> str:
    value = row.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{file}:{number}: {key!r} is {value!r:.40}, but must be a text")
    return value


def _read_corpus(file: Path) -> dict[str, Passage]:
    passages: dict[str, Passage] = {}
    for number, row in read_jsonl(file):
        identifier = _read_id(row, file, number, passages)
        document = row.get("doc_id")
        text, content = _read_text(row, "text", file, number), row.get("content")
        passages[identifier] = Passage(
            identifier,
            text,
            _read_text(row, "title", file, number),
            str(document) if document is not None else "",
            # Other tools may use this key for something else.
            content if isinstance(content, str) and content in text else "",
        )
    if not passages:
        raise InputError(f"{file} contains no passages: a dataset needs at least one")
    return passages


def _read_queries(file: Path) -> dict[str, Query]:
    queries: dict[str, Query] = {}
    for number, row in read_jsonl(file):
        identifier = _read_id(row, file, number, queries)
        text = _read_text(row, "text", file, number)
        if not text.strip():
            raise InputError(f"{file}:{number}: the question {identifier!r} is empty: add its text or remove it")
        # Datasets of other tools may have lists of answers, which are ignored.
        answer, evidence = (value if isinstance(value := row.get(key), str) else "" for key in ("answer", "evidence"))
        queries[identifier] = Query(
            identifier, text, _read_text(row, "style", file, number), answer, evidence, row.get("one_answer") is True
        )
    return queries


def _check_ids(location: str, query: str, queries: Container[str], passage: str, passages: Container[str]) -> None:
    if query not in queries:
        raise UnknownIdError(f"{location}: the query id {query!r} is not in queries.jsonl")
    if passage not in passages:
        raise UnknownIdError(f"{location}: the passage id {passage!r} is not in corpus.jsonl")


def _read_negatives(
    file: Path, queries: dict[str, Query], passages: dict[str, Passage]
) -> tuple[dict[str, list[str]], dict[str, dict[str, str]]]:
    """Return the negatives of each query, and the sources of those that were mined."""
    negatives: dict[str, dict[str, str]] = {}
    for number, row in read_jsonl(file) if file.exists() else ():
        query, passage = str(row.get("query-id", "")), str(row.get("corpus-id", ""))
        _check_ids(f"{file}:{number}", query, queries, passage, passages)
        negatives.setdefault(query, {})[passage] = str(row.get("source") or GIVEN)
    sources = {
        query: {passage: source for passage, source in source_of.items() if source != GIVEN}
        for query, source_of in negatives.items()
    }
    return {query: list(passages) for query, passages in negatives.items()}, {q: s for q, s in sources.items() if s}


def _read_scored_pairs(file: Path) -> list[ScoredPair]:
    pairs = []
    for number, row in read_jsonl(file) if file.exists() else ():
        query, passage = _read_text(row, "query", file, number), _read_text(row, "passage", file, number)
        score = row.get("score")
        if not query.strip() or not passage.strip():
            raise InputError(f'{file}:{number}: no "query" or no "passage": a scored pair needs both texts')
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
            raise InputError(f"{file}:{number}: the score {score!r:.40} is not a number from 0 to 1")
        pairs.append(ScoredPair(query, passage, float(score)))
    return pairs


def _read_qrels(file: Path, queries: dict[str, Query], passages: dict[str, Passage]) -> Qrels:
    qrels: Qrels = {}
    for number, line in read_lines(file):
        cells = line.split("\t")
        if not line.strip() or (number == 1 and cells[0] == "query-id"):
            continue
        if len(cells) == 4:  # TREC files have an unused second column
            cells = [cells[0], cells[2], cells[3]]
        if len(cells) != 3:
            raise InputError(f"{file}:{number}: {line[:60]!r} has {len(cells)} columns, not 3 ({HEADER!r})")
        query, passage, score = cells
        try:
            grade = int(score)
        except ValueError:
            raise InputError(f"{file}:{number}: the score {score!r} is not a whole number") from None
        _check_ids(f"{file}:{number}", query, queries, passage, passages)
        if grade > 0:
            qrels.setdefault(query, {})[passage] = grade
    return qrels
