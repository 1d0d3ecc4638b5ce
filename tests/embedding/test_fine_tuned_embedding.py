"""The model folder as a LlamaIndex embedding: prefixes, saving, loading, sync and async."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler

from rag_ft import FineTunedEmbedding, InputError
from rag_ft.embedding import ModelSpec
from rag_ft.embedding.cards import model_card
from rag_ft.embedding.encoding import encode
from rag_ft.embedding.loading import LOCAL_NAME, load_sentence_transformer, local_model_folder
from rag_ft.embedding.marked_vector import mark_of
from rag_ft.embedding.prefixes import family_prefixes, prefixes_for
from rag_ft.embedding.saving import save_model

TEXT = "A Kittiwake is an expenses claim."


def similarity(first: list[float], second: list[float]) -> float:
    return float(np.dot(first, second))


@pytest.fixture(scope="module")
def prefixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with both prefixes."""
    folder = tmp_path_factory.mktemp("models") / "prefixed"
    model = load_sentence_transformer("local", query_prefix="question: ", passage_prefix="passage: ")
    save_model(model, folder, "local")
    return folder


def test_each_role_gets_its_prefix(prefixed: Path) -> None:
    embedding = FineTunedEmbedding.load(prefixed, precision="fp32")
    plain = FineTunedEmbedding.load("local", precision="fp32")
    assert (embedding.query_prefix, embedding.passage_prefix) == ("question: ", "passage: ")
    query, passage = embedding.get_query_embedding(TEXT), embedding.get_text_embedding(TEXT)
    assert similarity(query, plain.get_text_embedding("question: " + TEXT)) > 0.9999
    assert similarity(passage, plain.get_text_embedding("passage: " + TEXT)) > 0.9999
    assert similarity(query, passage) < 0.999


def test_a_prefix_can_be_set_by_hand_and_an_empty_one_counts(prefixed: Path) -> None:
    embedding = FineTunedEmbedding.load(ModelSpec(name=prefixed, query_prefix="", passage_prefix="x: "))
    assert (embedding.query_prefix, embedding.passage_prefix) == ("", "x: ")


def test_sync_async_and_batch_give_the_same_vectors(prefixed: Path) -> None:
    embedding = FineTunedEmbedding.load(prefixed)
    texts = [TEXT, "short", TEXT * 30]
    batch = embedding.get_text_embedding_batch(texts)
    later = asyncio.run(embedding.aget_text_embedding_batch(texts))
    single = [embedding.get_text_embedding(text) for text in texts]
    for one, two, three in zip(batch, later, single, strict=True):
        assert similarity(one, two) > 0.999
        assert similarity(one, three) > 0.999
    query = asyncio.run(embedding.aget_query_embedding(TEXT))
    assert similarity(query, embedding.get_query_embedding(TEXT)) > 0.9999
    assert similarity(query, embedding.query_embeddings([TEXT])[0]) > 0.999


def test_it_survives_to_dict_and_from_dict(prefixed: Path) -> None:
    embedding = FineTunedEmbedding.load(prefixed)
    values = json.loads(json.dumps(embedding.to_dict()))
    again = FineTunedEmbedding.from_dict(values)
    assert values["class_name"] == FineTunedEmbedding.class_name() == "FineTunedEmbedding"
    assert again.contract == embedding.contract
    assert again.get_query_embedding(TEXT) == embedding.get_query_embedding(TEXT)


def test_other_weights_than_were_serialised_are_refused(prefixed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(prefixed, folder)
    values = FineTunedEmbedding.load(folder).to_dict()
    changed = load_sentence_transformer(str(folder))
    next(changed.parameters()).data.mul_(1.01)
    save_model(changed, folder, "local")
    with pytest.raises(InputError, match="instead of"):
        FineTunedEmbedding.from_dict(values).get_query_embedding(TEXT)


def test_it_can_be_pickled(prefixed: Path) -> None:
    embedding = FineTunedEmbedding.load(prefixed)
    again = pickle.loads(pickle.dumps(embedding))
    assert similarity(again.get_query_embedding(TEXT), embedding.get_query_embedding(TEXT)) > 0.9999


def test_llama_index_gets_an_event_for_each_embedding(prefixed: Path) -> None:
    heard: list[str] = []

    class Listener(BaseEventHandler):
        def handle(self, event: object, **kwargs: object) -> None:
            heard.append(type(event).__name__)

    dispatcher = get_dispatcher()
    listener = Listener()
    dispatcher.add_event_handler(listener)
    try:
        FineTunedEmbedding.load(prefixed).get_query_embedding(TEXT)
    finally:
        dispatcher.event_handlers.remove(listener)
    assert "EmbeddingEndEvent" in heard


def test_a_cache_that_would_mix_roles_is_refused(prefixed: Path) -> None:
    from llama_index.core.storage.kvstore import SimpleKVStore
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    # Plain LlamaIndex: the cache's key is the text alone, and a query gets the passage's vector.
    prefixes = {"query_instruction": "question: ", "text_instruction": "passage: "}
    mixing = HuggingFaceEmbedding(str(prefixed), device="cpu", **prefixes)
    mixing.embeddings_cache = SimpleKVStore()
    mixing.get_text_embedding_batch([TEXT])
    assert mixing.get_query_embedding(TEXT) == mixing.get_text_embedding(TEXT)
    plain = HuggingFaceEmbedding(str(prefixed), device="cpu", **prefixes)
    assert similarity(plain.get_query_embedding(TEXT), plain.get_text_embedding(TEXT)) < 0.999

    with pytest.raises(InputError, match="embeddings_cache"):
        FineTunedEmbedding(model_name=str(prefixed), embeddings_cache=SimpleKVStore())


def test_bfloat16_hardly_changes_vectors() -> None:
    model = load_sentence_transformer("local")
    texts = [TEXT, TEXT * 20]
    exact, fast = encode(model, texts, "document", precision="fp32"), encode(model, texts, "document", precision="auto")
    assert (exact * fast).sum(axis=1).min() > 0.999
    assert np.allclose(np.linalg.norm(fast, axis=1), 1, atol=1e-5)


def test_a_very_long_text_is_cut_and_not_read_whole() -> None:
    model = load_sentence_transformer("local")
    assert encode(model, ["word " * 2_000_000], "document").shape == (1, 384)


@pytest.mark.parametrize(
    ("name", "query", "passage"),
    [
        ("intfloat/e5-base-v2", "query: ", "passage: "),
        ("intfloat/multilingual-e5-small", "query: ", "passage: "),
        ("BAAI/bge-small-en-v1.5", "Represent this sentence for searching relevant passages: ", ""),
        ("nomic-ai/nomic-embed-text-v1.5", "search_query: ", "search_document: "),
        ("Snowflake/snowflake-arctic-embed-m-v2.0", "query: ", ""),
        ("thenlper/gte-small", "", ""),
        (LOCAL_NAME, "", ""),
    ],
)
def test_known_families_have_their_prefixes(name: str, query: str, passage: str) -> None:
    assert family_prefixes(name) == (query, passage)


def test_a_local_folder_of_a_known_family_keeps_its_prefixes(tmp_path: Path) -> None:
    by_path = tmp_path / "bge-small-en-v1.5"
    shutil.copytree(local_model_folder(), by_path)
    assert prefixes_for(str(by_path)).query_prefix.startswith("Represent this sentence")
    by_config = tmp_path / "our-model"
    shutil.copytree(local_model_folder(), by_config)
    config = json.loads((by_config / "config.json").read_text())
    (by_config / "config.json").write_text(json.dumps(config | {"_name_or_path": "intfloat/e5-small-v2"}))
    assert FineTunedEmbedding.load(by_config).query_prefix == "query: "


def test_pickled_weights_are_not_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(local_model_folder(), folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickle"):
        FineTunedEmbedding.load(folder)


def test_weights_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(local_model_folder(), folder)
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match="cannot be loaded"):
        FineTunedEmbedding.load(folder)


def test_the_card_shows_how_to_use_the_model_without_rag_ft(prefixed: Path) -> None:
    card = (prefixed / "README.md").read_text(encoding="utf-8")
    snippets = [part.split("```")[0] for part in card.split("```python\n")[1:]]
    assert len(snippets) == 3
    expected = FineTunedEmbedding.load(prefixed, precision="fp32")
    for snippet in snippets:
        if "HuggingFaceEmbedding" in snippet and importlib.util.find_spec("llama_index.embeddings.huggingface") is None:
            pytest.fail("llama-index-embeddings-huggingface is a dependency and is missing")
        names: dict[str, object] = {"MODEL_FOLDER": str(prefixed)}
        exec(snippet, names)
        if "embed_model" in names:
            model = names["embed_model"]
            assert similarity(model.get_query_embedding(TEXT), expected.get_query_embedding(TEXT)) > 0.9999  # type: ignore[attr-defined]
            assert similarity(model.get_text_embedding(TEXT), expected.get_text_embedding(TEXT)) > 0.9999  # type: ignore[attr-defined]
        if "queries" in names:
            query = expected.get_query_embedding("How do I claim expenses?")
            assert similarity(names["queries"][0], query) > 0.9999  # type: ignore[index]


def test_the_card_describes_the_training_and_its_scores(prefixed: Path) -> None:
    training = {
        "pairs": 40, "seconds": 60.0, "question_styles": {}, "dev_questions": 30, "dev_makings": {"other": 30},
        "dev_ndcg@10": {"base": 0.5, "share 0.5": 0.6}, "gain": {"mean": 0.1, "ci95": [0.02, 0.18]}, "share": 0.5,
        "dev_apart": {"earlier other": {"questions": 10, "base": 0.4, "shipped": 0.45}}, "level": 0.61,
        "general": {"base": 0.75, "share 0.5": 0.74}, "dev_triplet_accuracy": {"base": 0.8, "shipped": 0.9},
        "teacher": {"name": "large", "dev_ndcg@10": 0.7, "student": 0.6, "times_faster": 3.0},
    }  # fmt: skip
    record = json.loads((prefixed / "rag_ft.json").read_text()) | {
        "training": training,
        "recipe": {"epochs": 3},
        "generations": [{"name": "first", "pairs": 50, "share": 1.0}],
    }
    card = model_card(record)
    for said in (
        "40 pairs, 60 s. Recipe:",
        "Training selected the tuned model at alpha 0.5: dev nDCG@10 0.500 -> 0.600 (+0.100 [+0.020, +0.180]).",
        "| alpha 0.5 | 0.600 |",
        "Queries and passages\ntake these prefixes",
        "| earlier other | 10 | 0.400 | 0.450 |",
        "nDCG@10 0.610 on questions generated from the passages",
        "general questions (0 to 1): 0.740, of the base 0.750.",
        "Accuracy on dev triplets: 0.900, of the base 0.800.",
        "Distilled from large, and 3 times as fast: nDCG@10 0.600, of the teacher 0.700.",
        "Tuned before, in this order: first (50 pairs).",
    ):
        assert said in card


def test_the_card_of_a_kept_base_model_says_so(prefixed: Path) -> None:
    reason = "every candidate that beat the base model on dev was rejected"
    training = {
        "pairs": 40, "seconds": 60.0, "share": 0, "base_stays_because": reason, "dev_questions": 30,
        "dev_makings": {"other": 30}, "dev_documents": {"new": 30}, "dev_ndcg@10": {"base": 0.5, "share 0.5": 0.51},
        "dev_apart": {"other": {"questions": 30, "base": 0.5, "shipped": 0.5}}, "general": {"base": 0.75},
        "refused": {"share 0.5": "its gain on dev may be chance (+0.010 [-0.020, +0.040])"},
        "refused_gains": {"share 0.5": {"mean": 0.01, "ci95": [-0.02, 0.04]}},
        "teacher": {"name": "large", "dev_ndcg@10": 0.7, "student": 0.5, "times_faster": 3.0},
    }  # fmt: skip
    record = json.loads((prefixed / "rag_ft.json").read_text()) | {"training": training, "base_model": "a/base"}
    card = model_card(record)
    assert card.split("# prefixed\n\n")[1].startswith(f"These are the unchanged weights of a/base, because {reason}.\n")
    assert "tuned" not in card.replace("FineTunedEmbedding", "")
    assert "- alpha 0.5 (dev +0.010 [-0.020, +0.040]): its gain on dev may be chance\n" in card
    assert "Candidates were trained, and none of them is in this folder: 40 pairs" in card
    assert "30 on unseen documents" in card
    assert "distilled from large, which has nDCG@10 0.700" in card
    assert "of this model" not in card
    earlier = model_card(record | {"generations": [{"name": "first", "pairs": 50, "share": 1.0}]})
    assert f"the unchanged weights of first, an earlier model tuned from a/base, because {reason}." in earlier


def test_the_card_names_prefixes_only_if_there_are_some(prefixed: Path) -> None:
    record = json.loads((prefixed / "rag_ft.json").read_text())
    plain = model_card(record | {"query_prefix": "", "passage_prefix": ""})
    assert "It takes no query or passage prefix." in plain
    assert "HuggingFaceEmbedding(MODEL_FOLDER)" in plain
    assert not any(said in plain for said in ("| role |", "''", "saved prompts", "stored in the model"))
    one = model_card(record | {"query_prefix": "query: ", "passage_prefix": ""})
    assert "| query | `'query: '` |\n| passage | none |\n" in one


def test_vectors_are_cut_and_have_length_one(prefixed: Path) -> None:
    whole = np.asarray(FineTunedEmbedding.load(prefixed).get_text_embedding(TEXT))
    cut = FineTunedEmbedding.load(prefixed, dimension=64)
    vector = np.asarray(cut.get_text_embedding(TEXT))
    assert vector.shape == (64,)
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)
    assert similarity(vector.tolist(), (whole[:64] / np.linalg.norm(whole[:64])).tolist()) > 0.9999
    assert cut.contract.dimension == 64
    assert FineTunedEmbedding.from_dict(cut.to_dict()).contract == cut.contract
    with pytest.raises(InputError, match=r"dimension 400 exceeds the 384 of"):
        FineTunedEmbedding.load(prefixed, dimension=400)


def test_each_vector_carries_its_contract(prefixed: Path) -> None:
    embedding = FineTunedEmbedding.load(prefixed)
    made = [
        embedding.get_query_embedding(TEXT),
        embedding.get_text_embedding_batch([TEXT])[0],
        embedding.get_agg_embedding_from_queries([TEXT, "another"]),
        asyncio.run(embedding.aget_agg_embedding_from_queries([TEXT])),
        pickle.loads(pickle.dumps(embedding.get_query_embedding(TEXT))),
    ]
    assert [mark_of(vector) for vector in made] == [embedding.contract] * len(made)
    assert mark_of(made[0]) != FineTunedEmbedding.load(ModelSpec(name=prefixed, query_prefix="")).contract


def test_threads_get_the_vectors_of_their_own_texts(prefixed: Path) -> None:
    embedding = FineTunedEmbedding(model_name=str(prefixed))  # loaded by whichever comes first
    texts = [f"Form {n} is for item {n * 7}." for n in range(16)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(embedding.get_text_embedding, texts))
    for one, other in zip(found, embedding.get_text_embedding_batch(texts), strict=True):
        assert similarity(one, other) > 0.999


def test_a_pickle_holds_no_weights(prefixed: Path) -> None:
    assert len(pickle.dumps(FineTunedEmbedding.load(prefixed))) < 5_000


@pytest.mark.slow
def test_several_processes_share_a_long_list(prefixed: Path) -> None:
    embedding = FineTunedEmbedding.load(prefixed, devices=["cpu", "cpu"], encode_batch_size=8)
    texts = [f"Form {n} is for item {n * 7}." for n in range(64)]
    try:
        shared = embedding.get_text_embedding_batch(texts)
    finally:
        embedding.close()
    alone = FineTunedEmbedding.load(prefixed).get_text_embedding_batch(texts)
    for one, other in zip(shared, alone, strict=True):
        assert similarity(one, other) > 0.999


def test_batches_shrink_when_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_sentence_transformer("local", max_length=32)
    texts = [f"Form {number} " + "is signed " * (number % 5) for number in range(37)]
    expected = encode(model, texts, "document")
    plain, sizes = model.encode, []

    def short_of_memory(given: list[str], **kwargs: Any) -> Any:
        sizes.append(len(given))
        if len(given) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(given, **kwargs)

    monkeypatch.setattr(model, "encode", short_of_memory)
    assert encode(model, texts, "document") == pytest.approx(expected, abs=5e-3)
    assert max(sizes[-8:]) <= 5
    assert sum(size for size in sizes if size <= 5) == len(texts)


def test_a_missing_device_is_an_error_that_names_it(prefixed: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match=r"--device 'cuda' is not available"):
        FineTunedEmbedding.load(ModelSpec(name=prefixed, device="cuda"))
    with pytest.raises(InputError, match="--device 'gpu' is not a torch device"):
        load_sentence_transformer("local", device="gpu")


def test_16_bit_weights_are_converted_to_what_the_processor_computes(tmp_path: Path) -> None:
    model = load_sentence_transformer("local")
    model.half().save(str(tmp_path / "half"))
    loaded = load_sentence_transformer(str(tmp_path / "half"), device="cpu")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
