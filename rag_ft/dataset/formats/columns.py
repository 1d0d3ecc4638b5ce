"""Recognise the columns of a table of questions by their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rag_ft.errors import InputError

ROLES = ("query", "positive", "negative", "score", "document", "evidence", "answer", "id")

# Names in one string have the same priority: if a table has two of them, the user must choose. Earlier strings win.
QUERY = (
    "query question anchor query_text question_text user_query user_question user_input search_query search_term "
    "search sentence1 sentence_1",
    "prompt",
)
POSITIVE = (
    "positive positives pos positive_passage positive_passages positive_context positive_contexts positive_ctx "
    "positive_ctxs positive_text positive_document positive_documents positive_doc",
    "context contexts passage passages passage_text chunk chunk_text sentence2 sentence_2 reference_context "
    "reference_contexts relevant_passage relevant_passages gold_context clicked_passage document_text",
)
TEXT = ("text content",)
DOCUMENT = (
    "document documents doc docs doc_id doc_ids docid document_id document_ids clicked clicked_document "
    "clicked_documents clicked_doc clicked_doc_id clicked_url clicked_id",
    "source sources url urls link file file_name filename path file_path",
    "files file_names filenames source_file source_files document_name document_names doc_name doc_names",
)
TITLE = ("title document_title page_title",)
PASSAGE_ID = ("passage_id passage_ids pid node_id chunk_id corpus_id",)
SCORE = (
    "score scores label labels similarity similarity_score rating ratings stars feedback clicks click click_count "
    "relevance relevant is_relevant grade",
)
ANSWER = ("answer answers ground_truth reference_answer expected_answer response",)
EVIDENCE = ("evidence snippet quote highlight",)
ID = ("id query_id qid question_id",)
NUMBERED = {
    "positive": re.compile(r"pos(?:itive)?_?\d+"),
    "negative": re.compile(r"(?:hard_)?neg(?:ative)?s?(?:_(?:passage|context|ctx|text|document|doc)s?)?_?\d*"),
}
FLAGS = {"0", "1", "true", "false", "yes", "no"}
MIN_TEXT_WORDS = 10
"""Minimum number of words of a "document" cell for it to be the text of a document instead of its name."""


def find_columns(
    path: Path, columns: Sequence[str], head: Sequence[Mapping[str, Any]], fields: Mapping[str, str]
) -> dict[str, list[str]]:
    """Find the columns of each role. Roles without a column are left out.

    Args:
        path: the file, for the error message.
        columns: the columns of the table.
        head: its first rows, because "document" may contain names or texts, and "clicked" names or yes and no.
        fields: role -> column, as chosen by the user.

    Raises:
        InputError: if no column, or more than one, can be the question or the passage that answers it.

    Example:
        >>> from pathlib import Path
        >>> from rag_ft.dataset.formats.columns import find_columns
        >>> find_columns(Path("log.csv"), ["Question", "Context", "neg_1", "neg_2", "url"], [], {})
        {'query': ['Question'], 'positive': ['Context'], 'negative': ['neg_1', 'neg_2'], 'document': ['url']}
    """
    names = ", ".join(repr(str(column)[:30]) for column in columns[:8]) + (", …" if len(columns) > 8 else "")
    fix = (
        f'(columns: {names or "none"}): rename them, or pass fields={{"query": "…", "positive": "…"}} '
        "(--field query=… --field positive=…)"
    )
    for role, column in fields.items():
        if role not in ROLES:
            raise InputError(f"{path}: fields has the unknown role {role!r}: the roles are {', '.join(ROLES)}")
        if column not in columns:
            raise InputError(f"{path} has no column {column!r} {fix}")
    columns_of = {role: [column] for role, column in fields.items()}

    def free(tier: str) -> list[str]:
        taken = {column for role_columns in columns_of.values() for column in role_columns}
        return [column for column in columns if column not in taken and plain_name(column) in tier.split()]

    def choose(role: str, tiers: Iterable[str]) -> None:
        for tier in tiers if role not in columns_of else ():
            if matching := free(tier):
                if len(matching) > 1:
                    raise InputError(f"{path}: {' and '.join(map(repr, matching[:3]))} may both be the {role} {fix}")
                columns_of[role] = matching
                return

    for role, pattern in NUMBERED.items():
        matching = [column for column in columns if pattern.fullmatch(plain_name(column))]
        if matching and role not in columns_of:
            columns_of[role] = matching
    if "score" not in columns_of:
        choose("score", ["clicked"] if _all(head, free("clicked"), _is_flag) else SCORE)
    choose("query", QUERY)
    choose("evidence", EVIDENCE)
    choose("positive", POSITIVE)
    # "text" is the passage if there is a question column, and the question otherwise.
    choose("query", TEXT)
    choose("positive", TEXT)
    if _all(head, free(DOCUMENT[0]), _is_long):
        choose("positive", DOCUMENT[:1])
    choose("document", (*DOCUMENT, *PASSAGE_ID) if "positive" in columns_of else (*PASSAGE_ID, *DOCUMENT))
    choose("id", ID)
    if "positive" not in columns_of and "document" not in columns_of:
        choose("positive", ["answer"])
    # A title names a document, but many tables of texts have titles too.
    if "positive" not in columns_of and "document" not in columns_of:
        choose("document", TITLE)
    choose("answer", ANSWER)
    if "query" not in columns_of:
        raise InputError(f"{path}: no column is the question {fix}")
    if "positive" not in columns_of and "document" not in columns_of:
        raise InputError(f"{path}: no column is the passage or document that answers the question {fix}")
    return {role: columns_of[role] for role in ROLES if role in columns_of}


def plain_name(column: str) -> str:
    """Return the name of a column in lower case with underscores: "Query-ID " is query_id."""
    return re.sub(r"[\W_]+", "_", column.casefold()).strip("_")


def _all(head: Sequence[Mapping[str, Any]], columns: Sequence[str], predicate: Callable[[Any], bool]) -> bool:
    values = [value for column in columns for row in head if (value := row.get(column)) not in (None, "", [])]
    return bool(values) and all(predicate(value) for value in values)


def _is_flag(value: Any) -> bool:
    return str(value).strip().lower() in FLAGS


def _is_long(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_long(item) for item in value)
    return isinstance(value, str) and len(value.split()) >= MIN_TEXT_WORDS
