"""The structure stays what a newcomer expects: no circle, short functions, few parameters, few names at the top."""

from __future__ import annotations

from pathlib import Path

import pytest
from structure import Structure, measure

import rag_ft

PACKAGE = Path(rag_ft.__file__).parent

SET_BY_LIBRARIES = {
    "to_dict", "to_json", "add", "query", "delete", "delete_nodes", "async_add", "aquery", "adelete", "adelete_nodes",
    "get_nodes", "aget_nodes", "clear", "aclear", "complete", "stream_complete", "on_train_begin", "on_step_end",
    "on_log", "on_epoch_end", "on_train_end", "on_save", "training_step", "as_retriever", "insert",
    "ainsert",
}  # fmt: skip
"""Methods whose signature LlamaIndex or transformers sets."""


@pytest.fixture(scope="module")
def structure() -> Structure:
    return measure(PACKAGE)


def test_no_module_imports_in_a_circle(structure: Structure) -> None:
    assert structure.circles == []


def test_functions_and_files_fit_a_reader(structure: Structure) -> None:
    assert [str(function) for function in structure.functions_over(60)] == []
    assert [module.path for module in structure.files_over(400)] == []


def test_arguments_that_travel_together_are_one_thing(structure: Structure) -> None:
    many = [
        str(function)
        for function in structure.functions_with(8)
        if not function.is_front and not str(function).startswith(("cli/", "compat/"))
    ]
    assert len(many) <= 8, many
    assert len(structure.positional_calls) <= 8, structure.positional_calls


def test_no_public_function_hides_its_options(structure: Structure) -> None:
    hidden = [
        str(function)
        for function in structure.open_functions
        if not str(function).startswith("compat/") and function.node.name not in SET_BY_LIBRARIES
    ]
    assert hidden == []


def test_few_names_stand_at_the_top(structure: Structure) -> None:
    assert structure.public_names["rag_ft"] <= 35
    assert len(rag_ft.__all__) == structure.public_names["rag_ft"]


def test_the_dataset_of_a_training_is_passed_on_seldom(structure: Structure) -> None:
    assert 0 < len(structure.dataset_calls) <= 24, structure.dataset_calls
