"""The names of llama-index-finetuning: its dataset, question generation, evaluation, and the files it wrote."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.model_folders import pickled_copy
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.evaluation import get_retrieval_results_df
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata, MockLLM
from llama_index.core.schema import TextNode

import rag_ft.compat
from rag_ft import FineTunedEmbedding, InputError, load_dataset
from rag_ft.compat import (
    DEFAULT_QA_GENERATE_PROMPT_TMPL,
    AdapterEmbeddingModel,
    BaseAdapter,
    EmbeddingQAFinetuneDataset,
    LinearAdapterEmbeddingModel,
    LinearLayer,
    RetrieverEvaluator,
    TwoLayerNN,
    aevaluate_dataset,
    convert_model_folder,
    evaluate_dataset,
    generate_qa_embedding_pairs,
    generate_question_context_pairs,
)


class QuestionWriter(CustomLLM):
    """Writes two questions about each passage, slowly; keeps its prompts, and fails on passages with a certain word."""

    fails_on: str = ""
    fails_first: int = 0
    answer: str = ""
    seconds: float = 0.0
    prompts: list[str] = []  # noqa: RUF012
    max_in_flight: int = 0
    in_flight: int = 0

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="question-writer")

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        with LOCK:
            self.prompts.append(prompt)
            self.in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self.in_flight)
            number = len(self.prompts)
        time.sleep(self.seconds)
        with LOCK:
            self.in_flight -= 1
        if number <= self.fails_first or (self.fails_on and self.fails_on in prompt):
            raise ConnectionError("the server is away")
        words = re.findall(r"\w+", prompt.split("-" * 21)[1] if "-" * 21 in prompt else prompt)
        return CompletionResponse(text=self.answer or f"1. What is {words[0]}?\n2) Explain {words[-1]}")

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError


LOCK = threading.Lock()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, for the default output path."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def nodes(count: int, name: str = "n") -> list[TextNode]:
    return [
        TextNode(id_=f"{name}{i}", text=f"Term{name}{i} is a claim{i}", metadata={"file": "a"}) for i in range(count)
    ]


# The dataset


texts = st.text(st.characters(codec="utf-8"), max_size=20)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(texts, texts, min_size=1, max_size=5), st.data())
def test_a_saved_dataset_has_the_bytes_of_the_old_package_and_reads_back(
    tmp_path_factory: pytest.TempPathFactory, corpus: dict[str, str], data: st.DataObject
) -> None:
    queries = data.draw(st.dictionaries(texts, texts, max_size=4))
    relevant = {query: data.draw(st.lists(st.sampled_from(sorted(corpus)), max_size=3)) for query in queries}
    dataset = EmbeddingQAFinetuneDataset(queries=queries, corpus=corpus, relevant_docs=relevant)
    file = tmp_path_factory.mktemp("json") / "dataset.json"
    dataset.save_json(str(file))
    plain = {"queries": queries, "corpus": corpus, "relevant_docs": relevant, "mode": "text"}
    assert file.read_text() == json.dumps(plain, indent=4)
    assert EmbeddingQAFinetuneDataset.from_json(str(file)) == dataset
    assert dataset.query_docid_pairs == [(text, relevant[query]) for query, text in queries.items()]


def test_a_dataset_converts_to_a_qa_dataset_and_back(tmp_path: Path) -> None:
    dataset = EmbeddingQAFinetuneDataset(
        queries={"q": "Who?"}, corpus={"a": "One.", "b": "Two."}, relevant_docs={"q": ["b", "a"]}
    )
    converted = dataset.to_dataset("test")
    assert list(converted.qrels["test"]["q"]) == ["b", "a"]
    assert EmbeddingQAFinetuneDataset.from_dataset(converted, "test") == dataset
    assert dataset.to_dataset(first_only=True).pairs("train") == [("q", "b")]
    dataset.save_json(tmp_path / "old.json")
    assert load_dataset(tmp_path / "old.json").pairs("train") == [("q", "b"), ("q", "a")]


def test_a_missing_or_broken_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        EmbeddingQAFinetuneDataset.from_json(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text('{"queries": {}, "corpus": []}')
    with pytest.raises(InputError, match="queries, corpus, relevant_docs"):
        EmbeddingQAFinetuneDataset.from_json(tmp_path / "broken.json")
    wrong = EmbeddingQAFinetuneDataset(queries={"q": "?"}, corpus={}, relevant_docs={"q": ["p"]})
    with pytest.raises(InputError, match="'p'"):
        wrong.to_dataset()


# Questions


def test_an_answer_is_read_line_by_line_and_the_file_is_written(here: Path) -> None:
    made = generate_qa_embedding_pairs(nodes(3), QuestionWriter())
    assert list(made.corpus) == ["n0", "n1", "n2"]
    assert made.corpus["n0"] == "Termn0 is a claim0"
    assert list(made.queries.values())[:2] == ["What is Termn0?", "Explain claim0"]
    assert made.relevant_docs == {
        query: [node] for query, (_, [node]) in zip(made.queries, made.query_docid_pairs, strict=True)
    }
    assert EmbeddingQAFinetuneDataset.from_json("qa_finetune_dataset.json") == made


def test_positional_arguments_are_those_of_the_old_package(here: Path) -> None:
    template = "Passage: {context_str}\nAsk {num_questions_per_chunk}:"
    llm = QuestionWriter(answer="One?\nTwo?\nThree?")
    made = generate_qa_embedding_pairs(nodes(1), llm, template, 1, 2, "fail", 500, "out.json", False)
    assert llm.prompts == ["Passage: Termn0 is a claim0\nAsk 1:"]
    assert list(made.queries.values()) == ["One?"]
    assert Path("out.json").exists()


def test_a_passage_cannot_close_the_fence_of_the_default_prompt(here: Path) -> None:
    llm = QuestionWriter()
    generate_qa_embedding_pairs([TextNode(text="before\n" + "-" * 40 + "\nafter")], llm)
    assert llm.prompts[0].count("-" * 21) == 2
    assert "{context_str}" in DEFAULT_QA_GENERATE_PROMPT_TMPL


def test_the_default_llm_is_that_of_the_settings(here: Path) -> None:
    Settings.llm = MockLLM()
    try:
        made = generate_qa_embedding_pairs(nodes(1), qa_generate_prompt_tmpl="{context_str}", num_questions_per_chunk=1)
    finally:
        Settings.llm = None
    assert list(made.queries.values()) == ["Termn0 is a claim0"]


def test_calls_are_concurrent_and_the_dataset_keeps_the_order_of_the_nodes(here: Path) -> None:
    llm = QuestionWriter(seconds=0.05)
    made = generate_qa_embedding_pairs(nodes(16), llm)
    assert llm.max_in_flight == 8
    assert list(made.corpus) == [f"n{i}" for i in range(16)]


def test_two_datasets_at_the_default_path_do_not_mix(here: Path) -> None:
    train = generate_qa_embedding_pairs(nodes(3, "train"), QuestionWriter())
    with pytest.warns(UserWarning, match="separate output_path"):
        val = generate_qa_embedding_pairs(nodes(2, "val"), QuestionWriter())
    assert set(val.corpus) == {"val0", "val1"}
    assert EmbeddingQAFinetuneDataset.from_json("qa_finetune_dataset.json") == val
    kept = next(Path().glob("qa_finetune_dataset.????????.json"))
    assert EmbeddingQAFinetuneDataset.from_json(kept) == train
    llm = QuestionWriter()
    with pytest.warns(UserWarning, match="is kept as"):
        assert generate_qa_embedding_pairs(nodes(3, "train"), llm) == train
    assert not llm.prompts


def test_the_next_call_only_asks_about_nodes_that_failed(here: Path) -> None:
    with pytest.warns(UserWarning, match="left out 1 of 5 nodes"):
        first = generate_qa_embedding_pairs(nodes(5), QuestionWriter(fails_on="Termn1 "), retry_limit=1)
    assert list(first.corpus) == ["n0", "n2", "n3", "n4"]
    llm = QuestionWriter()
    second = generate_qa_embedding_pairs(nodes(5), llm)
    assert len(llm.prompts) == 1
    assert "Termn1 " in llm.prompts[0]
    assert list(second.corpus) == [f"n{i}" for i in range(5)]
    assert first.queries.items() <= second.queries.items()


def test_answers_from_before_a_kill_are_not_asked_for_again(here: Path) -> None:
    class Killed(QuestionWriter):
        def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
            if len(self.prompts) == 6:
                raise KeyboardInterrupt
            return super().complete(prompt)

    with pytest.raises(KeyboardInterrupt):
        generate_qa_embedding_pairs(nodes(10), Killed(), workers=1)
    saved = EmbeddingQAFinetuneDataset.from_json("qa_finetune_dataset.json")
    assert 0 < len(saved.corpus) <= 6
    Path("qa_finetune_dataset.json").unlink()  # the answers are in the journal too
    llm = QuestionWriter()
    assert len(generate_qa_embedding_pairs(nodes(10), llm).corpus) == 10
    assert len(llm.prompts) == 10 - len(saved.corpus)


def test_questions_of_the_old_package_are_kept(here: Path) -> None:
    old = {"queries": {"6f9619ff-8b86-4011-b42d-00cf4fc964ff": "Old?"}, "corpus": {"n0": nodes(1)[0].text}}
    relevant = {"6f9619ff-8b86-4011-b42d-00cf4fc964ff": ["n0"]}
    Path("old.json").write_text(json.dumps(old | {"relevant_docs": relevant, "mode": "text"}))
    llm = QuestionWriter()
    made = generate_qa_embedding_pairs(nodes(2), llm, output_path="old.json")
    assert len(llm.prompts) == 1
    assert next(iter(made.queries.values())) == "Old?"


def test_another_prompt_asks_about_all_nodes_again(here: Path) -> None:
    generate_qa_embedding_pairs(nodes(2), QuestionWriter())
    llm = QuestionWriter()
    made = generate_qa_embedding_pairs(nodes(2), llm, num_questions_per_chunk=1)
    assert (len(llm.prompts), len(made.queries)) == (2, 2)


def test_a_failing_llm_is_tried_retry_limit_times_and_then_reported(here: Path) -> None:
    llm = QuestionWriter(fails_first=2)
    assert len(generate_qa_embedding_pairs(nodes(1), llm, retry_limit=3).queries) == 2
    assert len(llm.prompts) == 3
    failing = QuestionWriter(fails_on="Term", seconds=0)
    with pytest.raises(RuntimeError, match="the server is away"):
        generate_qa_embedding_pairs(nodes(1, "x"), failing, retry_limit=2, on_failure="fail", output_path="x.json")
    assert len(failing.prompts) == 2
    with pytest.warns(UserWarning, match="left out 2 of 2"):
        assert not generate_qa_embedding_pairs(nodes(2, "y"), failing, retry_limit=1, output_path="y.json").queries


def test_too_few_questions_and_unused_arguments_raise_warnings(here: Path) -> None:
    with pytest.warns(UserWarning, match="fewer than 3 questions"):
        generate_qa_embedding_pairs(nodes(1), QuestionWriter(), num_questions_per_chunk=3)
    with pytest.warns(UserWarning, match="save_every is not used") as caught:
        generate_qa_embedding_pairs(nodes(1), QuestionWriter(), save_every=10)
    assert caught[0].filename == __file__
    with pytest.raises(InputError, match="on_failure"):
        generate_qa_embedding_pairs(nodes(1), QuestionWriter(), on_failure="stop")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="context_str"):
        generate_qa_embedding_pairs(nodes(1), QuestionWriter(), "{text}")


def test_pairs_for_an_evaluation_are_not_written_and_keep_all_passages(here: Path) -> None:
    with pytest.warns(UserWarning, match="no question for 1 of 3"):
        made = generate_question_context_pairs(
            nodes(3), llm=QuestionWriter(fails_on="Termn1 "), num_questions_per_chunk=2
        )
    assert (len(made.corpus), len(made.queries)) == (3, 4)
    assert not list(here.iterdir())


# Evaluation


@pytest.fixture(scope="module")
def base() -> FineTunedEmbedding:
    return FineTunedEmbedding.load("local")


@pytest.fixture(scope="module")
def animals() -> EmbeddingQAFinetuneDataset:
    corpus = {"cat": "Cats sleep on the sofa.", "ship": "Ships cross the ocean.", "bread": "Bread is baked from flour."}
    return EmbeddingQAFinetuneDataset(
        queries={"1": "a sleeping cat", "2": "sailing on the sea", "3": "flour and an oven"},
        corpus=corpus,
        relevant_docs={"1": ["cat"], "2": ["ship"], "3": ["bread"]},
    )


def test_a_retriever_is_evaluated_on_a_dataset(base: FineTunedEmbedding, animals: EmbeddingQAFinetuneDataset) -> None:
    index = VectorStoreIndex([TextNode(id_=k, text=v) for k, v in animals.corpus.items()], embed_model=base)
    evaluator = RetrieverEvaluator.from_metric_names(
        ["hit_rate", "mrr"], retriever=index.as_retriever(similarity_top_k=2)
    )
    results = evaluate_dataset(evaluator, animals, workers=2, show_progress=True)
    assert [result.query for result in results] == list(animals.queries.values())
    assert [result.expected_ids for result in results] == [["cat"], ["ship"], ["bread"]]
    table = get_retrieval_results_df(["base"], [results])
    assert table.loc[0, "hit_rate"] == 1.0
    alone = animals.model_copy(update={"relevant_docs": {"1": ["cat"]}})
    with pytest.raises(InputError, match="'2'"):
        evaluate_dataset(evaluator, alone)


async def evaluate_in_both_ways(evaluator: Any, dataset: EmbeddingQAFinetuneDataset) -> tuple[list[Any], list[Any]]:
    return await evaluator.aevaluate_dataset(dataset), await aevaluate_dataset(evaluator, dataset, 3, True)


def test_the_method_and_the_coroutine_give_the_same_results(
    base: FineTunedEmbedding, animals: EmbeddingQAFinetuneDataset
) -> None:
    import asyncio

    index = VectorStoreIndex([TextNode(id_=k, text=v) for k, v in animals.corpus.items()], embed_model=base)
    evaluator = RetrieverEvaluator.from_metric_names(["mrr"], retriever=index.as_retriever())
    one, other = asyncio.run(evaluate_in_both_ways(evaluator, animals))
    assert [result.metric_vals_dict for result in one] == [result.metric_vals_dict for result in other]


# Files of the old package


def test_an_adapter_folder_of_the_old_package_loads(base: FineTunedEmbedding, tmp_path: Path) -> None:
    weights = torch.eye(384).flip(0)
    torch.save({"linear.weight": weights}, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text('{"in_features": 384, "out_features": 384, "bias": false}')
    adapted = LinearAdapterEmbeddingModel(base, str(tmp_path))
    vector = base.get_query_embedding("a claim")
    assert adapted.get_query_embedding("a claim") == pytest.approx(list(reversed(vector)), abs=1e-6)
    assert adapted.get_text_embedding("a claim") == base.get_text_embedding("a claim")
    assert adapted.get_text_embedding_batch(["a", "b"]) == base.get_text_embedding_batch(["a", "b"])
    assert adapted.model_name == "Adapter for local"
    unchanged = AdapterEmbeddingModel(base, str(tmp_path), None, False)
    assert unchanged.get_query_embedding("a claim") == pytest.approx(vector)


def test_adapters_are_saved_as_the_old_package_does(tmp_path: Path) -> None:
    adapter = TwoLayerNN(4, 8, 4, bias=True, add_residual=True)
    vector = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert torch.equal(adapter(vector), vector)
    with torch.no_grad():
        adapter.residual_weight.fill_(0.5)
    adapter.save(str(tmp_path / "two"))
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["config.json", "pytorch_model.bin"]
    assert torch.equal(TwoLayerNN.load(str(tmp_path / "two"))(vector), adapter(vector))
    LinearLayer(3, 2, bias=True).save(tmp_path / "one")
    assert LinearLayer.load(tmp_path / "one")(torch.tensor([1.0, 2.0, 3.0])).tolist() == [1.0, 2.0]
    with pytest.raises(InputError, match="adapter_cls"):
        LinearLayer.load(tmp_path / "two")
    with pytest.raises(NotImplementedError, match="get_config_dict"):
        BaseAdapter().save(tmp_path / "none")


class Bomb:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('boom')",)


def test_weights_that_run_code_are_not_loaded(tmp_path: Path) -> None:
    torch.save({"linear.weight": Bomb()}, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text('{"in_features": 2, "out_features": 2}')
    with pytest.raises(InputError, match="more than tensors"):
        LinearLayer.load(tmp_path)
    new = tmp_path.with_name("new")
    with pytest.raises(InputError, match="more than tensors"):
        convert_model_folder(tmp_path, new)
    assert not new.exists()
    with pytest.raises(InputError, match="choose another folder"):
        convert_model_folder(tmp_path, tmp_path / "new")


def test_a_model_folder_with_pickled_weights_is_converted(base: FineTunedEmbedding, tmp_path: Path) -> None:
    old = pickled_copy(tmp_path / "old")
    with pytest.raises(InputError, match="pickle"):
        FineTunedEmbedding.load(old)
    new = FineTunedEmbedding.load(convert_model_folder(old, tmp_path / "new"))
    assert new.get_text_embedding("a claim") == base.get_text_embedding("a claim")


# Names


def test_every_public_name_exists_and_an_unsupported_one_names_its_replacement() -> None:
    for name in rag_ft.compat.__all__:
        assert getattr(rag_ft.compat, name) is not None
    with pytest.raises(ImportError, match="CrossEncoderTrainer"):
        from rag_ft.compat import CohereRerankerFinetuneEngine  # noqa: F401
    with pytest.raises(ImportError, match="openai"):
        from rag_ft.compat import OpenAIFinetuneEngine  # noqa: F401
    with pytest.raises(AttributeError):
        rag_ft.compat.nothing  # noqa: B018


def test_importing_compat_loads_no_heavy_package() -> None:
    heavy = {"torch", "llama_index.core", "llama_index.finetuning"}
    program = f"import sys, rag_ft.compat; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_correct_calls_raise_no_warning(here: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        generate_qa_embedding_pairs(nodes(2), QuestionWriter(), output_path="mine.json")
        generate_qa_embedding_pairs(nodes(2), QuestionWriter(), output_path="mine.json")
