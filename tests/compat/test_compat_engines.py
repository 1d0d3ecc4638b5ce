"""The two engines of llama-index-finetuning, called as before on a small dataset."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.model_folders import pickled_copy
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.embeddings import MockEmbedding
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from rag_ft import FineTunedEmbedding, InputError, Passage, QADataset, Query
from rag_ft.compat import (
    AdapterEmbeddingModel,
    BaseEmbeddingFinetuneEngine,
    CompatibilityWarning,
    EmbeddingAdapterFinetuneEngine,
    EmbeddingQAFinetuneDataset,
    LinearLayer,
    SentenceTransformersFinetuneEngine,
    TwoLayerNN,
)
from rag_ft.embedding.loading import load_sentence_transformer

WORDS = ["Kittiwake", "Lantern", "Gannet", "Fulmar", "Petrel", "Plimsoll", "Marram", "Eider", "Orlop", "Hawser"]
MEANINGS = [
    *("an expenses claim", "a day at home", "a company card", "a travel advance", "petty cash", "a spending limit"),
    *("a study day", "a parental leave", "a server room", "a network cable"),
]


def dataset(words: slice = slice(None), both: bool = True) -> EmbeddingQAFinetuneDataset:
    """Make two questions about each of a few passages about in-house words."""
    meant = list(zip(WORDS[words], MEANINGS[words], strict=True))
    corpus = {word: f"{word}: {meaning}, signed by the head of the department." for word, meaning in meant}
    queries = {f"{word}-1": f"Who signs {meaning}?" for word, meaning in meant}
    queries |= {f"{word}-2": f"What is a {word}?" for word, _ in meant} if both else {}
    return EmbeddingQAFinetuneDataset(
        queries=queries, corpus=corpus, relevant_docs={query: [query.rpartition("-")[0]] for query in queries}
    )


def engine(folder: Path, train: Any = None, **arguments: Any) -> SentenceTransformersFinetuneEngine:
    settings = {"epochs": 1, "show_progress_bar": False, "max_length": 32} | arguments
    return SentenceTransformersFinetuneEngine(train or dataset(slice(8)), "local", str(folder / "m"), **settings)


# SentenceTransformersFinetuneEngine


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> SentenceTransformersFinetuneEngine:
    made = engine(tmp_path_factory.mktemp("tuned"), val_dataset=dataset(slice(8, None)), query_prefix="q: ")
    made.finetune(learning_rate=2e-5)
    return made


def test_the_tuned_model_is_an_embedding_with_prefixes(tuned: SentenceTransformersFinetuneEngine) -> None:
    model = tuned.get_finetuned_model(embed_batch_size=32)
    assert isinstance(model, BaseEmbedding)
    assert isinstance(model, FineTunedEmbedding)
    assert (model.model_name, model.query_prefix, model.embed_batch_size) == (tuned.model_output_path, "q: ", 32)
    assert isinstance(tuned, BaseEmbeddingFinetuneEngine)
    vector = tuned.model.encode_query("a claim", normalize_embeddings=True)
    assert model.get_query_embedding("a claim") == pytest.approx(vector.tolist(), abs=2e-2)
    other = tuned.get_finetuned_model(query_instruction="Instruct:")
    assert other.query_prefix == "Instruct: "


def test_the_best_candidate_is_saved_and_the_base_is_one_of_them(tuned: SentenceTransformersFinetuneEngine) -> None:
    assert {"base", "epoch 1", "alpha 1"} <= set(tuned.dev)
    record = recorded(tuned)
    alpha = record["training"]["share"]
    assert tuned.dev[f"alpha {alpha:g}" if alpha else "base"] == max(
        score for name, score in tuned.dev.items() if not name.startswith("epoch")
    )
    assert record["recipe"]["learning_rate"] == 2e-5
    assert record["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"


def recorded(made: SentenceTransformersFinetuneEngine) -> Any:
    return json.loads((Path(made.model_output_path) / "rag_ft.json").read_text(encoding="utf-8"))


def test_its_attributes_are_those_of_the_old_engine(tmp_path: Path) -> None:
    made = SentenceTransformersFinetuneEngine(dataset(), "local", str(tmp_path / "m"))
    assert (made.batch_size, made.epochs, made.evaluation_steps, made.show_progress_bar) == (10, 2, 50, True)
    assert (made.model_id, made.use_all_docs, made.checkpoint_path) == ("local", False, None)
    assert (len(made.examples), len(made.loader), made.warmup_steps) == (20, 2, 0)
    assert made.examples[0].texts == [next(iter(made.dataset.queries.values())), made.dataset.corpus["Kittiwake"]]
    assert [example.texts for batch in made.loader for example in batch] == [e.texts for e in made.examples]
    assert isinstance(made.loss, MultipleNegativesRankingLoss)
    assert made.evaluator is None
    with pytest.raises(InputError, match="finetune"):
        made.get_finetuned_model()
    measured = engine(tmp_path, val_dataset=dataset(slice(2)))
    assert measured.evaluator(measured.model)[measured.evaluator.primary_metric] > 0


def test_without_validation_questions_are_held_out_and_a_harmful_training_keeps_the_base(tmp_path: Path) -> None:
    made = engine(tmp_path, dataset())
    with pytest.warns(UserWarning, match="holds the base model"):
        made.finetune(optimizer_params={"lr": 0.5})
    base = load_sentence_transformer("local").state_dict()
    saved = load_sentence_transformer(made.model_output_path).state_dict()
    assert all(torch.equal(base[name], saved[name]) for name in base)
    assert all(torch.equal(base[name], tensor.cpu()) for name, tensor in made.model.state_dict().items())


def test_validation_questions_that_are_trained_on_do_not_select(tmp_path: Path) -> None:
    made = engine(tmp_path, dataset(slice(8), both=False), val_dataset=dataset(slice(6, None)))
    with pytest.warns(UserWarning, match="2 questions of val_dataset are in the training set"):
        made.finetune()
    assert recorded(made)["training"]["dev_questions"] == 6


def test_unused_arguments_raise_warnings(tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer import losses

    with pytest.warns(CompatibilityWarning) as caught:
        made = engine(tmp_path, save_checkpoints=True, evaluation_steps=10, trust_remote_code=True)
    messages = " ".join(str(each.message) for each in caught)
    assert all(name in messages for name in ("save_checkpoints", "evaluation_steps", "trust_remote_code"))
    assert {each.filename for each in caught} == {__file__}
    assert made.checkpoint_path == str(Path("checkpoints") / made.model_output_path)
    with pytest.warns(UserWarning, match="rag_ft.train_model"):
        engine(tmp_path, loss=losses.CosineSimilarityLoss(made.model))
    with pytest.warns(UserWarning, match="weight_decay"):
        made._recipe({"weight_decay": 0.01})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        gist = engine(tmp_path, loss=losses.CachedGISTEmbedLoss(made.model, made.model))
        assert gist._recipe({"epochs": 5}).loss == "gist"
        matryoshka = losses.MatryoshkaLoss(made.model, losses.MultipleNegativesRankingLoss(made.model), [384, 128])
        assert engine(tmp_path, loss=matryoshka)._recipe({"warmup_steps": 1}).dimensions == (384, 128)


def test_wrong_input_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no question"):
        engine(tmp_path, EmbeddingQAFinetuneDataset(queries={}, corpus={}, relevant_docs={}))
    with pytest.raises(InputError, match="EmbeddingQAFinetuneDataset"):
        engine(tmp_path, ["a question"])
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not empty and not a model"):
        engine(tmp_path)


def test_a_dataset_may_be_a_file_or_a_qa_dataset(tmp_path: Path) -> None:
    dataset(slice(2)).save_json(tmp_path / "d.json")
    assert len(engine(tmp_path, str(tmp_path / "d.json")).examples) == 4
    passages = {"p": Passage("p", "One."), "o": Passage("o", "Two.")}
    ours = QADataset(passages, {"q": Query("q", "Which?")}, {"train": {"q": {"p": 1, "o": 1}}})
    assert len(engine(tmp_path, ours, use_all_docs=True).examples) == 2


@pytest.mark.slow
def test_training_goes_on_from_a_model_of_the_old_package(tmp_path: Path) -> None:
    old = pickled_copy(tmp_path / "old")
    made = SentenceTransformersFinetuneEngine(
        dataset(), str(old), str(tmp_path / "new"), epochs=1, show_progress_bar=False, max_length=32
    )
    made.finetune()
    assert len(made.get_finetuned_model().get_text_embedding("a claim")) == 384


# EmbeddingAdapterFinetuneEngine


@pytest.fixture(scope="module")
def base() -> FineTunedEmbedding:
    return FineTunedEmbedding.load("local")


def test_a_linear_adapter_learns_and_loads(base: FineTunedEmbedding, tmp_path: Path) -> None:
    made = EmbeddingAdapterFinetuneEngine(
        dataset(), base, epochs=4, model_output_path=str(tmp_path / "a"), model_checkpoint_path=str(tmp_path / "ck"),
        checkpoint_save_steps=2, bias=True,
    )  # fmt: skip
    assert (made.dim, made.batch_size, len(made.loader)) == (384, 10, 2)
    queries, passages = next(iter(made.loader))
    assert queries.shape == passages.shape == (10, 384)
    assert torch.equal(made.model.linear.weight, torch.eye(384))
    made.finetune()
    assert sorted(path.name for path in (tmp_path / "ck").iterdir()) == ["step_2", "step_4", "step_6", "step_8"]
    model = made.get_finetuned_model()
    assert isinstance(model, AdapterEmbeddingModel)
    late = AdapterEmbeddingModel(base, str(tmp_path / "ck" / "step_8"), LinearLayer)
    query = "Who signs a company card?"
    assert late.get_query_embedding(query) != pytest.approx(base.get_query_embedding(query))
    assert model.get_text_embedding("a card") == base.get_text_embedding("a card")
    assert made.dev["no adapter"] == made.dev["untrained"] <= max(made.dev.values())
    on = EmbeddingAdapterFinetuneEngine.from_model_path(dataset(), base, str(tmp_path / "ck" / "step_8"), dim=384)
    assert torch.equal(on.model.linear.weight, late._adapter.linear.weight)


def test_the_given_learning_rate_and_optimizer_are_used(base: FineTunedEmbedding, tmp_path: Path) -> None:
    def change(**arguments: Any) -> float:
        made = EmbeddingAdapterFinetuneEngine(
            dataset(), base, dim=384, model_output_path=str(tmp_path / "a"), model_checkpoint_path=str(tmp_path / "ck"),
            checkpoint_save_steps=1, **arguments,
        )  # fmt: skip
        made.finetune()
        last = LinearLayer.load(max((tmp_path / "ck").iterdir(), key=lambda path: path.stat().st_mtime))
        return float((last.linear.weight.detach() - torch.eye(384)).abs().max())

    small = change(optimizer_class=torch.optim.SGD, optimizer_params={"lr": 1e-6})
    assert change(optimizer_class=torch.optim.SGD, optimizer_params={"lr": 1e-2}) > 100 * small
    with pytest.warns(UserWarning, match="scheduler"):
        change(scheduler="cosine")


def test_each_text_is_embedded_once(tmp_path: Path) -> None:
    class Counting(MockEmbedding):
        texts: list[str] = []  # noqa: RUF012

        def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            self.texts.extend(texts)
            return [[float(len(text)), 1.0] for text in texts]

        def _get_query_embedding(self, query: str) -> list[float]:
            self.texts.append(query)
            return [float(len(query)), 1.0]

    counting = Counting(embed_dim=2)
    made = EmbeddingAdapterFinetuneEngine(dataset(), counting, 4, 5, dim=2, model_output_path=str(tmp_path / "a"))
    made.finetune()
    assert len(counting.texts) == len(set(counting.texts)) == 30


def test_a_two_layer_adapter_starts_as_the_identity_and_keeps_its_class(
    base: FineTunedEmbedding, tmp_path: Path
) -> None:
    adapter = TwoLayerNN(384, 64, 384, bias=True, add_residual=True)
    made = EmbeddingAdapterFinetuneEngine(
        dataset(), base, 10, 3, adapter, None, "cpu", str(tmp_path / "a"), verbose=True
    )
    made.finetune()
    assert made.model is adapter
    again = made.get_finetuned_model(adapter_cls=TwoLayerNN)
    assert again.get_query_embedding("x") == made.get_finetuned_model().get_query_embedding("x")
    with pytest.raises(InputError, match="LinearLayer"):
        AdapterEmbeddingModel(base, str(tmp_path / "a"))


def test_an_adapter_needs_two_questions_and_a_training(base: FineTunedEmbedding, tmp_path: Path) -> None:
    made = EmbeddingAdapterFinetuneEngine(dataset(slice(1), both=False), base, model_output_path=str(tmp_path / "a"))
    with pytest.raises(InputError, match="2 or more"):
        made.finetune()
    with pytest.raises(InputError, match="finetune"):
        made.get_finetuned_model()
