"""The whole pipeline: nodes to a dataset, a model, a comparison and an index. Finished stages are skipped."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.response_synthesizers import ResponseMode

from rag_ft.dataset.formats.beir import read_beir, write_beir
from rag_ft.dataset.review import Review
from rag_ft.documents.node_gate import admitted
from rag_ft.embedding.fine_tuned import FineTunedEmbedding
from rag_ft.embedding.loading import DEFAULT_BASE_MODEL
from rag_ft.embedding.model_spec import ModelSpec
from rag_ft.errors import InputError
from rag_ft.evaluation.compare import compare
from rag_ft.evaluation.comparison import Comparison
from rag_ft.evaluation.options import CompareOptions
from rag_ft.files import read_json, sha256_of
from rag_ft.generation.generate import generate_qa_dataset
from rag_ft.generation.question_options import QuestionOptions
from rag_ft.index.build import open_index, rebuild_index, stored_fingerprint
from rag_ft.report.html import write_report
from rag_ft.retrieval.fusion import Fusion
from rag_ft.retrieval.hybrid import HybridRetriever, keep_fusion
from rag_ft.stages import Stages, fingerprint_of_nodes, fingerprint_of_questions, plain_options, plain_value
from rag_ft.training.loop.trainer import check_training_device
from rag_ft.training.recipe import STORED_NAMES, check_settings
from rag_ft.training.train import rule_for, train_model

if TYPE_CHECKING:
    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.base_query_engine import BaseQueryEngine
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.llms import LLM
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import BaseNode

    from rag_ft.dataset.formats.real_questions import RealQuestion
    from rag_ft.dataset.qa_dataset import QADataset
    from rag_ft.evaluation.conclusion import Conclusion
    from rag_ft.generation.generate import GeneratedDataset
    from rag_ft.training.selection.select import SelectBy

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FineTuneRun:
    """The result of a run: the embedding and the index to use, and the comparison behind this choice.

    Attributes:
        folder: the run folder: `dataset/`, `model/`, `chroma/`, `comparison.json`, `report.html`, `run.json`.
        comparison: the base and the tuned model on the held-out questions.
        embed_model: the embedding to use: the tuned one if the verdict is `ship`, else the baseline's.
        opened: `index`, or a function that opens it at first use if an earlier call built it.
        candidate: the tuned embedding, whatever the verdict is.

    Example:
        >>> from pathlib import Path
        >>> import chromadb
        >>> from llama_index.core import MockEmbedding
        >>> from llama_index.core.llms import MockLLM
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft import FineTuneRun, Passage, QADataset, Query, compare, rebuild_index
        >>> passages = {"p": Passage("p", "Leave is booked in HELM.")}
        >>> dataset = QADataset(passages, {"q": Query("q", "Where is leave booked?")}, {"test": {"q": {"p": 1}}})
        >>> model, nodes = MockEmbedding(embed_dim=8), [TextNode(text="Leave is booked in HELM.")]
        >>> index = rebuild_index(nodes, model, chromadb.EphemeralClient(), "run-example")
        >>> comparison = compare(dataset, model, model)
        >>> run = FineTuneRun(Path("runs/acme"), comparison, model, index, model)  # as fine_tune returns it
        >>> query_engine = run.query_engine(llm=MockLLM(), similarity_top_k=5)
        >>> query_engine.query("Where is leave booked?").source_nodes[0].text
        'Leave is booked in HELM.'
    """

    folder: Path
    comparison: Comparison
    embed_model: FineTunedEmbedding
    opened: VectorStoreIndex | Callable[[], VectorStoreIndex]
    candidate: FineTunedEmbedding

    @cached_property
    def index(self) -> VectorStoreIndex:
        """The index that was built with `embed_model`."""
        return self.opened() if callable(self.opened) else self.opened

    @property
    def conclusion(self) -> Conclusion | None:
        """What was decided, why, what to use, what it costs, and what to do next."""
        return self.comparison.conclusion

    def __str__(self) -> str:
        return str(self.comparison)

    def _repr_html_(self) -> str:
        return self.comparison._repr_html_()

    def retriever(self, similarity_top_k: int = 10) -> BaseRetriever:
        """Return the retriever that the comparison concludes to use, over `index`: BM25, the embedding, or both.

        Args:
            similarity_top_k: number of passages to return.
        """
        kind = self.conclusion.kind if self.conclusion is not None else "embedding"
        if kind == "bm25":
            return HybridRetriever(self.index, Fusion(weight=0.0), similarity_top_k)
        if kind == "hybrid":
            return HybridRetriever(self.index, similarity_top_k=similarity_top_k)
        return self.index.as_retriever(similarity_top_k=similarity_top_k)

    def query_engine(
        self,
        llm: LLM | None = None,
        similarity_top_k: int = 10,
        *,
        response_mode: ResponseMode = ResponseMode.COMPACT,
        node_postprocessors: list[BaseNodePostprocessor] | None = None,
        streaming: bool = False,
    ) -> BaseQueryEngine:
        """Return a LlamaIndex query engine over `retriever`.

        Args:
            llm: the LLM that answers; None uses `Settings.llm`.
            similarity_top_k: number of passages that the LLM reads.
            response_mode: how LlamaIndex combines them into one answer.
            node_postprocessors: rerankers and filters for the passages.
            streaming: stream the answer.
        """
        from llama_index.core.query_engine import RetrieverQueryEngine

        return RetrieverQueryEngine.from_args(
            self.retriever(similarity_top_k), llm=llm, response_mode=response_mode,
            node_postprocessors=node_postprocessors, streaming=streaming,
        )  # fmt: skip


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
    select: SelectBy = "safe",
) -> FineTuneRun:
    """Fine-tune an embedding model on nodes, and test on held-out questions whether retrieval got better.

    Finished stages are skipped, so the same call on the same folder resumes a killed run. If the nodes or an argument
    change, the stages that depend on them are repeated.

    Args:
        nodes: the nodes of the application.
        llm: the LLM that writes the questions; None uses `Settings.llm`.
        use_llm: False generates the questions without any model.
        questions: questions that people asked. The comparison uses them.
        unseen_documents: fraction of the documents that training does not see, to measure retrieval on new
            documents. Use 0 to train on all documents.
        base_model: a hub name, a folder, or `local`.
        output_dir: the run folder.
        query_prefix: text put before a query; None uses the base model's own prefix.
        passage_prefix: text put before a passage; None uses the base model's own prefix.
        max_length: maximum number of tokens read per passage; None derives it from the passage lengths.
        max_pairs: maximum number of training pairs.
        max_minutes: maximum training time in minutes.
        settings: values that replace those of the training recipe: `epochs`, `learning_rate`, ... (`Recipe`).
        chroma: a folder or `http://host:port` for the index; None uses the run folder's `chroma/`.
        collection: the readable part of the collection's name.
        seed: seeds every random choice.
        device: a torch device; None picks the best one available.
        show_progress: show progress bars with the time left.
        question_options: what the LLM is asked for, how it is called, the filters, and users' picks.
        select: `safe` ships a tuned model only with proof that it is better and with no sign of harm elsewhere; `dev`
            ships the one with the best dev score. The comparison on test questions decides in both cases.

    Raises:
        InputError: if the input is invalid.
        OutsideError: if an LLM, a server, the hub or the disk fails. Progress is saved; repeat the call to resume.

    Example:
        >>> import tempfile
        >>> from llama_index.core import Settings
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft import fine_tune
        >>> text = "The {0} is greased by its keeper. Whoever breaks the {0} tells the warden."
        >>> machines = ["crane", "winch", "pump", "gauge", "hoist", "lamp", "ladder", "rope", "anchor", "buoy"]
        >>> nodes = [TextNode(text=text.format(machine), id_=machine) for machine in machines]
        >>> run = fine_tune(nodes, use_llm=False, base_model="local", output_dir=tempfile.mkdtemp() + "/run")
        >>> run.comparison.verdict, run.embed_model.model_name  # too few questions for a verdict: the base model stays
        ('inconclusive', 'local')
        >>> Settings.embed_model = run.embed_model  # doctest: +SKIP
        >>> run.retriever(similarity_top_k=1).retrieve("Who looks after the crane?")[0].node_id
        'crane'
    """
    check_training_device(device)
    check_settings(settings or {})  # before any LLM call costs money
    nodes = list(admitted(nodes))  # before the first stage, because the last one stores their metadata
    stages = Stages(Path(output_dir))
    source = _QuestionSource(
        llm=llm, use_llm=use_llm, questions=questions, unseen_documents=unseen_documents, options=question_options,
        seed=seed, show_progress=show_progress,
    )  # fmt: skip
    spec = ModelSpec(
        name=base_model, query_prefix=query_prefix, passage_prefix=passage_prefix, max_length=max_length, device=device
    )
    limits: dict[str, Any] = {"max_pairs": max_pairs, "max_minutes": max_minutes, "seed": seed}
    if rule_for(select) != "significant":
        limits["select"] = select

    dataset = _dataset_stage(stages, nodes, source)
    candidate = _model_stage(stages, dataset, spec, limits, settings, show_progress)
    # Both models read the same number of tokens, because a larger maximum length is not an effect of tuning.
    baseline = _at_first_use(replace(spec, max_length=candidate.max_length))
    comparison = _comparison_stage(stages, dataset, baseline, candidate, seed, show_progress)
    chosen = candidate if comparison.verdict == "ship" else baseline
    index = _index_stage(stages, nodes, chosen, comparison, chroma, collection, show_progress)
    return FineTuneRun(stages.folder, comparison, chosen, index, candidate)


@dataclass(frozen=True, kw_only=True)
class _QuestionSource:
    """Where the questions of a run come from."""

    llm: LLM | None
    use_llm: bool
    questions: Sequence[RealQuestion]
    unseen_documents: float
    options: QuestionOptions | None
    seed: int
    show_progress: bool

    def stored(self, nodes: Sequence[BaseNode]) -> dict[str, Any]:
        """Return what the dataset depends on, as stored in `run.json`."""
        from llama_index.core import Settings

        return {
            "nodes": fingerprint_of_nodes(nodes),
            "questions": sha256_of(*(repr(question) for question in self.questions)),
            "llm": plain_value(self.llm or Settings.llm) if self.use_llm else "none",
            **(plain_options(self.options) if self.options is not None else {}),
            "new_documents": self.unseen_documents,
            "seed": self.seed,
        }

    def generate(self, nodes: Sequence[BaseNode], journal: Path) -> GeneratedDataset:
        """Generate the dataset."""
        options = self.options or QuestionOptions()
        options = replace(options, journal=options.journal or journal, show_progress=self.show_progress)
        return generate_qa_dataset(
            nodes, self.llm, use_llm=self.use_llm, questions=self.questions, unseen_documents=self.unseen_documents,
            seed=self.seed, question_options=options,
        )  # fmt: skip


def _dataset_stage(stages: Stages, nodes: Sequence[BaseNode], source: _QuestionSource) -> QADataset:
    folder, depends_on = stages.folder / "dataset", source.stored(nodes)
    if not stages.done("dataset", depends_on, "dataset/corpus.jsonl"):
        stages.start("dataset")
        try:
            generated = source.generate(nodes, stages.folder / "journal.jsonl")
            # A question that a person rejected stays rejected if questions are generated again.
            reviewed, rejected = Review.load(folder).apply(generated.dataset)
            write_beir(reviewed, folder, generated.dropped + rejected)
        except InputError:
            stages.withdraw()
            raise
        stages.finish("dataset", depends_on)
    return read_beir(folder)


def _model_stage(
    stages: Stages,
    dataset: QADataset,
    spec: ModelSpec,
    limits: Mapping[str, Any],
    settings: Mapping[str, Any] | None,
    show_progress: bool,
) -> FineTunedEmbedding:
    folder = stages.folder / "model"
    arguments = {
        "base_model": spec.name,
        "query_prefix": spec.query_prefix,
        "passage_prefix": spec.passage_prefix,
        "max_length": spec.max_length,
        **limits,
    }
    depends_on = {"questions": fingerprint_of_questions(stages.folder / "dataset")} | arguments
    if settings:
        depends_on["settings"] = {
            STORED_NAMES.get(name, name): value for name, value in json.loads(json.dumps(settings)).items()
        }
    if not stages.done("model", depends_on, "model/rag_ft.json"):
        stages.start("model")
        train_model(dataset, folder, settings=settings, device=spec.device, show_progress=show_progress, **arguments)
        stages.finish("model", depends_on)
    record = read_json(folder / "rag_ft.json")
    return _at_first_use(ModelSpec(name=folder, max_length=record["max_length"] or None, device=spec.device))


def _at_first_use(spec: ModelSpec) -> FineTunedEmbedding:
    """Return an embedding that loads its model at first use: a call that repeats no stage needs none."""
    settings = asdict(spec)
    return FineTunedEmbedding(model_name=str(settings.pop("name")), **settings)


def _comparison_stage(
    stages: Stages,
    dataset: QADataset,
    baseline: FineTunedEmbedding,
    candidate: FineTunedEmbedding,
    seed: int,
    show_progress: bool,
) -> Comparison:
    folder = stages.folder
    if not stages.done("comparison", {}, "report.html"):
        stages.start("comparison")
        comparison = compare(
            dataset,
            baseline,
            candidate,
            options=CompareOptions(name=folder.name),
            seed=seed,
            show_progress=show_progress,
        )
        comparison.save(folder / "comparison.json")
        record = read_json(folder / "model" / "rag_ft.json")
        write_report(comparison, folder / "report.html", dataset, record, title=folder.name)
        stages.finish("comparison", {})
    return Comparison.load(folder / "comparison.json")


def _index_stage(
    stages: Stages,
    nodes: Sequence[BaseNode],
    embed_model: FineTunedEmbedding,
    comparison: Comparison,
    chroma: str | Path | None,
    collection: str,
    show_progress: bool,
) -> VectorStoreIndex | Callable[[], VectorStoreIndex]:
    depends_on = {
        "nodes": fingerprint_of_nodes(nodes, as_indexed=True),
        "verdict": comparison.verdict,
        # A run folder may be moved, or named by another path.
        "embed_model": "model" if comparison.verdict == "ship" else embed_model.model_name,
        "chroma": str(chroma) if chroma is not None else None,
        "collection": collection,
    }
    chroma = chroma or stages.folder / "chroma"
    depends_on["contract"] = stored_fingerprint(chroma, collection)
    if stages.done("index", depends_on, "comparison.json"):
        return partial(open_index, embed_model, chroma, collection)
    stages.start("index")
    index = rebuild_index(nodes, embed_model, chroma, collection, show_progress=show_progress)
    _keep_learned_fusion(index, comparison, "candidate" if comparison.verdict == "ship" else "baseline")
    stages.finish("index", depends_on | {"contract": stored_fingerprint(chroma, collection)})
    return index


def _keep_learned_fusion(index: VectorStoreIndex, comparison: Comparison, role: str) -> None:
    """Store with the index the fusion with BM25 that the comparison learned for its model."""
    hybrid = comparison.details.get(f"hybrid-{role}", {})
    if "fusion" in hybrid:
        keep_fusion(index, Fusion.from_dict(hybrid["fusion"]))
