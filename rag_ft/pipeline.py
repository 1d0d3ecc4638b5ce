"""The whole job: nodes -> dataset -> model -> index -> comparison, and what was done is not done again."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_ft.dataset.formats.beir import read_beir, write_beir
from rag_ft.dataset.review import Review
from rag_ft.embedding.loading import DEFAULT_BASE_MODEL
from rag_ft.errors import InputError
from rag_ft.evaluation.compare import compare
from rag_ft.evaluation.comparison import Comparison
from rag_ft.files import read_json, sha256_of, sha256_of_file, write_json

if TYPE_CHECKING:
    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.base_query_engine import BaseQueryEngine
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.llms import LLM
    from llama_index.core.schema import BaseNode

    from rag_ft.embedding.fine_tuned import FineTunedEmbedding
    from rag_ft.feedback.vote_log import Votes
    from rag_ft.generation.question_options import QuestionOptions
    from rag_ft.generation.real_questions import RealQuestion

logger = logging.getLogger(__name__)

CALL_OPTIONS = {"journal", "workers", "requests_per_minute", "batch", "approve", "show_progress"}
"""Fields of `QuestionOptions` that change no question, but how an LLM is called."""


@dataclass(frozen=True)
class FineTuneRun:
    """What a run leaves: the embedding and the index to use from now on, and the proof.

    Attributes:
        folder: the run folder: `dataset/`, `model/`, `chroma/`, `comparison.json`, `report.html`, `run.json`.
        comparison: before and after on the held-out questions.
        embed_model: the embedding to use: the tuned one where the verdict is `ship`, else the baseline's.
        index: the index that goes with it.
        candidate: the tuned embedding, whatever the verdict.

    Example:
        >>> from pathlib import Path
        >>> import chromadb
        >>> from llama_index.core import MockEmbedding
        >>> from llama_index.core.llms import MockLLM
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft import Passage, QADataset, Query, FineTuneRun, compare, rebuild_index
        >>> passages = {"p": Passage("p", "Leave is booked in HELM.")}
        >>> dataset = QADataset(passages, {"q": Query("q", "Where is leave booked?")}, {"test": {"q": {"p": 1}}})
        >>> model, nodes = MockEmbedding(embed_dim=8), [TextNode(text="Leave is booked in HELM.")]
        >>> index = rebuild_index(nodes, model, chromadb.EphemeralClient(), "run-example")
        >>> run = FineTuneRun(Path("runs/acme"), compare(dataset, model, model), model, index, model)  # as fine_tune returns it
        >>> query_engine = run.query_engine(llm=MockLLM(), similarity_top_k=5)
        >>> query_engine.query("Where is leave booked?").source_nodes[0].text
        'Leave is booked in HELM.'
    """

    folder: Path
    comparison: Comparison
    embed_model: FineTunedEmbedding
    index: VectorStoreIndex
    candidate: FineTunedEmbedding

    def retriever(self, similarity_top_k: int = 10) -> BaseRetriever:
        """The kind of retriever that the comparison recommends, over `index`: BM25, the embedding, or both mixed.

        Which model's index that is the verdict decides, not the recommendation; where the two speak of different
        models, the log says so.

        Args:
            similarity_top_k: passages to return.
        """
        from rag_ft.retrieval.fusion import Fusion
        from rag_ft.retrieval.hybrid import HybridRetriever

        recommended = self.comparison.recommendation.role if self.comparison.recommendation else ""
        tuned = self.comparison.verdict == "ship"
        if recommended.endswith("baseline" if tuned else "candidate"):
            logger.warning(
                "recommended is %s, and the index holds the %s model's vectors, by the verdict on it", recommended,
                "tuned" if tuned else "base",
            )  # fmt: skip
        if recommended == "bm25":
            return HybridRetriever(self.index, Fusion(weight=0.0), similarity_top_k)
        if recommended.startswith("hybrid"):
            return HybridRetriever(self.index, similarity_top_k=similarity_top_k)
        return self.index.as_retriever(similarity_top_k=similarity_top_k)

    def query_engine(self, llm: LLM | None = None, similarity_top_k: int = 10, **kwargs: Any) -> BaseQueryEngine:
        """A LlamaIndex query engine over `retriever`.

        Args:
            llm: writes the answers; `Settings.llm` where None.
            similarity_top_k: passages that it reads.
            **kwargs: of `RetrieverQueryEngine.from_args`.
        """
        from llama_index.core.query_engine import RetrieverQueryEngine

        return RetrieverQueryEngine.from_args(self.retriever(similarity_top_k), llm=llm, **kwargs)


def fine_tune(
    nodes: Sequence[BaseNode],
    llm: LLM | None = None,
    *,
    use_llm: bool = True,
    questions: Sequence[RealQuestion] = (),
    unseen_documents: float = 0.2,
    base_model: str = DEFAULT_BASE_MODEL,
    output_dir: str | Path = "runs/rag_ft",
    query_prefix: str | None = None,
    passage_prefix: str | None = None,
    max_length: int | None = None,
    max_pairs: int | None = None,
    max_minutes: float | None = None,
    settings: Mapping[str, Any] | None = None,
    chroma: str | Path | None = None,
    collection: str = "passages",
    seed: int = 0,
    device: str | None = None,
    show_progress: bool = False,
    question_options: QuestionOptions | None = None,
) -> FineTuneRun:
    """Fine-tune an embedding model on nodes, and prove on held-out questions whether retrieval got better.

    Stages that are done are not done again: the same call on the same folder goes on where a killed one was.
    A change of the nodes or of an argument redoes the stages that depend on it.

    Args:
        nodes: the nodes of the application.
        llm: writes the questions; `Settings.llm` where None.
        use_llm: False makes the questions without any model.
        questions: questions that people asked; the comparison is made on them.
        unseen_documents: share of the documents that training does not see, for a figure on those yet to come; 0 where
            all documents are known, and all of them are to be trained on.
        base_model: a hub name, a folder, or `local`.
        output_dir: the run folder.
        query_prefix: put before a query; the base model's own where None.
        passage_prefix: put before a passage; the base model's own where None.
        max_length: tokens to read of a passage; chosen by the passages where None.
        max_pairs: train on so many pairs at most.
        max_minutes: make training fit this time.
        settings: numbers of the training recipe that replace its own: `epochs`, `learning_rate`, ... (`Recipe`).
        chroma: a folder or `http://host:port` for the index; the run folder's `chroma/` where None.
        collection: the readable part of the collection's name.
        seed: of every draw.
        device: a torch device; the best there is where None.
        show_progress: progress bars with time left.
        question_options: what the LLM is asked for and how it is called, the filters, and people's picks.

    Raises:
        InputError: where the input is wrong.
        OutsideError: where an LLM, a server, the hub or the disk fails; what was done is kept.

    Example:
        >>> import tempfile
        >>> from llama_index.core import Settings
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft import fine_tune
        >>> text = "The {0} is greased by its keeper. Whoever breaks the {0} tells the warden."
        >>> machines = ["crane", "winch", "pump", "gauge", "hoist", "lamp", "ladder", "rope", "anchor", "buoy"]
        >>> nodes = [TextNode(text=text.format(machine), id_=machine) for machine in machines]
        >>> run = fine_tune(nodes, use_llm=False, base_model="local", output_dir=tempfile.mkdtemp() + "/run")
        >>> run.comparison.verdict, run.embed_model.model_name  # so few questions tell nothing: the base model stays
        ('inconclusive', 'local')
        >>> Settings.embed_model = run.embed_model  # doctest: +SKIP
        >>> run.retriever(similarity_top_k=1).retrieve("Who looks after the crane?")[0].node_id
        'crane'
    """
    from llama_index.core import Settings

    from rag_ft.embedding.fine_tuned import FineTunedEmbedding
    from rag_ft.embedding.model_spec import ModelSpec
    from rag_ft.generation.generate import generate_qa_dataset
    from rag_ft.generation.question_options import QuestionOptions
    from rag_ft.index.build import rebuild_index
    from rag_ft.report.html import write_report
    from rag_ft.retrieval.fusion import Fusion
    from rag_ft.retrieval.hybrid import keep_fusion
    from rag_ft.training.loop.trainer import check_training_device
    from rag_ft.training.recipe import check_settings
    from rag_ft.training.train import train_model

    check_training_device(device)
    check_settings(settings or {})  # before questions are paid for
    folder = Path(output_dir)
    stages = Stages(folder)

    generation = {
        "nodes": _fingerprint(nodes),
        "questions": sha256_of(*(repr(question) for question in questions)),
        "llm": _plain(llm or Settings.llm) if use_llm else "none",
        **(_plain_options(question_options) if question_options is not None else {}),
        "new_documents": unseen_documents,
        "seed": seed,
    }
    if not stages.done("dataset", generation, "dataset/corpus.jsonl"):
        stages.start("dataset")
        try:
            options = question_options or QuestionOptions()
            made = generate_qa_dataset(
                nodes,
                llm,
                use_llm=use_llm,
                questions=questions,
                unseen_documents=unseen_documents,
                seed=seed,
                question_options=replace(
                    options, journal=options.journal or folder / "journal.jsonl", show_progress=show_progress
                ),
            )
            # What a person has rejected stays rejected, also when questions are made again.
            questioned, rejected = Review.load(folder / "dataset").apply(made.dataset)
            write_beir(questioned, folder / "dataset", made.dropped + rejected)
        except InputError:
            stages.withdraw()
            raise
        stages.finish("dataset", generation)
    dataset = read_beir(folder / "dataset")

    training = {
        "questions": _questions_of(folder / "dataset"),
        "base_model": base_model,
        "query_prefix": query_prefix,
        "passage_prefix": passage_prefix,
        "max_length": max_length,
        "max_pairs": max_pairs,
        "max_minutes": max_minutes,
        "seed": seed,
        **({"settings": json.loads(json.dumps(settings))} if settings else {}),
    }
    if not stages.done("model", training, "model/rag_ft.json"):
        stages.start("model")
        train_model(
            dataset, folder / "model", seed=seed, device=device, show_progress=show_progress, settings=settings,
            **_arguments(training),
        )  # fmt: skip
        stages.finish("model", training)
    candidate = FineTunedEmbedding.load(ModelSpec(name=folder / "model", device=device))

    # Both sides read as far into a passage: a longer reach alone is no merit of the tuning.
    baseline = FineTunedEmbedding.load(
        ModelSpec(
            name=base_model,
            query_prefix=query_prefix,
            passage_prefix=passage_prefix,
            max_length=candidate.max_length,
            device=device,
        )
    )
    if not stages.done("comparison", {}, "report.html"):
        stages.start("comparison")
        comparison = compare(dataset, baseline, candidate, name=folder.name, seed=seed, show_progress=show_progress)
        comparison.save(folder / "comparison.json")
        record = read_json(folder / "model" / "rag_ft.json")
        write_report(comparison, folder / "report.html", dataset, record, title=folder.name)
        stages.finish("comparison", {})
    comparison = Comparison.load(folder / "comparison.json")

    chosen = candidate if comparison.verdict == "ship" else baseline
    stages.start("index")
    index = rebuild_index(nodes, chosen, chroma or folder / "chroma", collection, show_progress=show_progress)
    hybrid = comparison.details.get("hybrid-candidate" if chosen is candidate else "hybrid-baseline", {})
    if "fusion" in hybrid:
        keep_fusion(index, Fusion.from_dict(hybrid["fusion"]))
    stages.finish("index", {"verdict": comparison.verdict, "embed_model": chosen.model_name})
    return FineTuneRun(folder, comparison, chosen, index, candidate)


STAGES = ("dataset", "model", "comparison", "index")
"""In their order: each depends on those before it."""


class Stages:
    """Which stages of a run are done, and with what: kept in `run.json`.

    A stage counts as done when it ended with the same arguments and no stage before it was done anew.

    Args:
        folder: the run folder.

    Raises:
        InputError: where the folder holds something else.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "run.json"
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not self.file.exists()):
            raise InputError(
                f"{folder} is in the way and no run of rag_ft: choose another --output, nothing is overwritten"
            )
        self._stages: dict[str, dict[str, Any]] = read_json(self.file)["stages"] if self.file.exists() else {}
        self._fresh = False

    def done(self, name: str, arguments: dict[str, Any], product: str) -> bool:
        """Whether a stage need not be done again: it ended with these arguments, and its product is there."""
        unchanged = not self._fresh and self._stages.get(name) == arguments
        done = unchanged and (self.file.parent / product).is_file()
        if done:
            logger.info("%s: done before", name)
        return done

    def start(self, name: str) -> None:
        """A stage begins: it and what follows it are no longer done."""
        self._fresh = True
        for stale in STAGES[STAGES.index(name) :]:
            self._stages.pop(stale, None)
        write_json(self.file, {"stages": self._stages})

    def withdraw(self) -> None:
        """Leave nothing behind of a run that could not begin."""
        if not self._stages and list(self.file.parent.iterdir()) == [self.file]:
            self.file.unlink()
            self.file.parent.rmdir()

    def finish(self, name: str, arguments: dict[str, Any]) -> None:
        """A stage is done: from now on it is not done again."""
        self._stages[name] = arguments
        write_json(self.file, {"stages": self._stages})


def _arguments(training: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in training.items() if key not in ("seed", "questions", "settings")}


def _questions_of(dataset: Path) -> str:
    """What a person may have changed since the questions were made (`rag-ft review`)."""
    return sha256_of(
        *(sha256_of_file(file) for file in [dataset / "queries.jsonl", *sorted(dataset.glob("qrels/*.tsv"))])
    )


def _plain(value: Any) -> Any:
    """A setting as `run.json` keeps it; of a model its name alone, never its key."""
    from rag_ft.generation.llm_questions import llm_identity

    if hasattr(value, "metadata") and hasattr(value, "class_name"):
        return llm_identity(value)
    if hasattr(value, "template_vars"):
        return value.format(**{name: f"{{{name}}}" for name in value.template_vars})
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if hasattr(value, "model_name"):
        return str(value.model_name)
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _plain_options(options: QuestionOptions) -> dict[str, Any]:
    """Return the options that change a question, as `run.json` keeps them: those that differ from the default."""
    default = type(options)()
    changed = [
        each.name
        for each in fields(options)
        if each.name not in {*CALL_OPTIONS, "feedback"} and getattr(options, each.name) != getattr(default, each.name)
    ]
    # `max_passages` is there in any case: the command `rag-ft run` has always stored it.
    names = sorted({*changed, "max_passages"})
    return {name: _plain(getattr(options, name)) for name in names} | _votes_in(options.feedback)


def _votes_in(feedback: str | Path | Votes | None) -> dict[str, str]:
    """What picks there are: more of them make another dataset."""
    if feedback is None:
        return {}
    file = Path(feedback) if isinstance(feedback, str | Path) else feedback.file
    return {"feedback": sha256_of_file(file) if file.is_file() else str(file)}


def _fingerprint(nodes: Sequence[BaseNode]) -> str:
    from llama_index.core.schema import MetadataMode

    return sha256_of(
        *(part for node in nodes for part in (node.node_id, node.get_content(metadata_mode=MetadataMode.EMBED)))
    )
