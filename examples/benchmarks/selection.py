"""Both errors of model selection: good models that it refuses, and bad ones that it accepts.

    python examples/benchmarks/selection.py measure --seeds 0 1
    python examples/benchmarks/selection.py generated covidqa scifact tenk-uber demo
    python examples/benchmarks/selection.py arrives --seeds 0 1 2
    python examples/benchmarks/selection.py table

`measure` trains on questions of six kinds: people's (covidqa), claims (scifact), an LLM's (Lyft's filing, tested on
Uber's), template questions from the handbook's titles and headings, key phrases (covidqa) and short queries of one to
three words (the rarest words of scifact's claims). Each kind is trained well (`good`), on shuffled answers (`shuffled`)
and with a learning rate ten times too high (`hot`). Every training is tried in two corpora: its own, and one with the
passages of another collection, whose own test questions count too. For the base and for alphas of .5 and 1 all
values of selection are written to MEASURED (a line of JSON for each training and corpus), with the truth: nDCG@10 on
test questions, which selection does not see.

`generated` trains on questions that are generated without an LLM, whose alphas are capped by `headroom`. For each
collection it gives nDCG@10 of the base on key phrases, the allowed alphas, and the gain of each alpha on the
collection's own test questions, so that alphas beyond the cap can be judged too.

`arrives` trains with the defaults on the template questions, and compares the gain on dev with that on test: dev as it
selects the model (among 600 passages), and dev and test among all passages.

`table` applies selection rules to these values. A refusal is false if the base stays although some alpha gains at least
.01 on the test questions with an interval above 0, and loses on no collection of the corpus. An acceptance is false if
the selected alpha has an interval below 0 on the test questions of a collection of the corpus. Results are in
results/selection.json.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from quality import RESULTS, machine, without_labels
from sentence_transformers import SentenceTransformer

from rag_ft import (
    QADataset,
    Query,
    cut_into_nodes,
    generate_qa_dataset,
    load_dataset,
    read_documents,
    train_model,
)  # fmt: skip
from rag_ft.dataset import hold_out_dev, read_questions
from rag_ft.dataset.splitting import split_questions
from rag_ft.demo import acme_folder
from rag_ft.documents import passages_from_nodes
from rag_ft.embedding.contract import read_model_record
from rag_ft.embedding.encoding import encode
from rag_ft.embedding.loading import load_sentence_transformer
from rag_ft.evaluation.metrics import HEADLINE
from rag_ft.evaluation.significance import Difference, paired_bootstrap
from rag_ft.evaluation.verdict import MIN_GAIN
from rag_ft.generation.without_llm import KeyPhrases
from rag_ft.training.examples.pairs import pair_examples
from rag_ft.training.loop.trainer import run_trainer
from rag_ft.training.plan import scale_alphas
from rag_ft.training.prepare import Choices, prepare
from rag_ft.training.selection.dev_score import MIN_PART, dev_gain
from rag_ft.training.selection.dev_set import DevQuestions
from rag_ft.training.selection.forgetting import ForgettingProbe
from rag_ft.training.selection.headroom import headroom
from rag_ft.training.selection.select import Candidate, Policy, select
from rag_ft.training.selection.uncovered import UncoveredDocuments
from rag_ft.training.selection.weights import copy_weights, interpolate_weights

ALPHAS = (0.5, 1.0)
KINDS = ("people", "claims", "llm", "template", "key phrases", "short")
QUALITIES = ("good", "shuffled", "hot")
OWN_PASSAGES, OTHER_PASSAGES, MAX_PAIRS, MAX_LENGTH = 800, 300, 300, 128
OTHER = {"people": "scifact", "claims": "covidqa", "llm": "covidqa", "template": "covidqa", "key phrases": "scifact",
         "short": "covidqa"}  # fmt: skip
"""Kind -> the collection whose passages are added."""


def subset(dataset: QADataset, size: int, splits: Sequence[str], seed: int) -> QADataset:
    """Keep the passages of random documents up to a size, with the questions about them."""
    documents = list(dataset.documents)
    random.Random(seed).shuffle(documents)
    asked = [document for document in documents if any(
        document in dataset.documents_of(dataset.qrels[split], split) for split in splits if split in dataset.qrels
    )] if len(documents) > 2_000 else documents  # fmt: skip
    kept: dict[str, None] = {}
    for document in [*asked, *documents]:
        if len(kept) >= size:
            break
        kept |= dict.fromkeys(dataset.documents[document])
    passages = {key: passage for key, passage in dataset.passages.items() if key in kept}
    qrels = {
        split: {query: grades for query, grades in dataset.qrels[split].items() if grades.keys() <= kept.keys()}
        for split in splits
        if split in dataset.qrels
    }
    return QADataset(passages, dataset.queries, qrels)


def template_questions(data: Path, seed: int) -> QADataset:
    """Ask template questions about the handbook's titles and headings, split by document."""
    nodes = cut_into_nodes(read_documents(data / "handbook"), chunk_size=200, chunk_overlap=0)
    passages = subset(QADataset(passages_from_nodes(nodes), {}, {}), OWN_PASSAGES, (), seed).passages
    templates = ("What is {}?", "How does {} work?", "What do I need to know about {}?", "Who is responsible for {}?")
    queries, qrels, seen = {}, {}, set()
    rng = random.Random(seed)
    for key, passage in passages.items():
        headings = re.findall(r"^#{1,6}\s+(.+?)\s*#*$", passage.text, re.MULTILINE)
        for heading in headings or ([passage.title] if passage.document not in seen else []):
            subject = re.sub(r"[^\w\s'/&-]", "", heading).strip()
            if not 1 <= len(subject.split()) <= 8:
                continue
            seen.add(passage.document)
            queries[f"q{len(queries)}"] = Query(f"q{len(queries)}", rng.choice(templates).format(subject), "real")
            qrels[f"q{len(qrels)}"] = {key: 1}
    dataset = QADataset(passages, queries, {})
    return dataset.with_qrels(split_questions(dataset, qrels, unseen_documents=0.35, unseen_questions=0.0, seed=seed))


def key_phrase_questions(collection: QADataset, seed: int) -> QADataset:
    """Ask key phrases about every passage, split by document."""
    dataset = subset(collection, OWN_PASSAGES, (), seed)
    phrases, rng = KeyPhrases(dataset.passage_texts.values()), random.Random(seed)
    asked = {key: phrases.query(text, rng) for key, text in dataset.passage_texts.items()}
    queries = {f"q {key}": Query(f"q {key}", text, "real") for key, text in asked.items() if text}
    dataset = QADataset(dataset.passages, queries, {})
    qrels = {query: {query[2:]: 1} for query in queries}
    return dataset.with_qrels(split_questions(dataset, qrels, unseen_documents=0.35, unseen_questions=0.0, seed=seed))


def shortened(dataset: QADataset, seed: int) -> QADataset:
    """Keep one to three of the rarest words of each question."""
    words = {key: re.findall(r"\w[\w-]+", query.text.lower()) for key, query in dataset.queries.items()}
    counts: dict[str, int] = {}
    for each in words.values():
        for word in set(each):
            counts[word] = counts.get(word, 0) + 1
    rng = random.Random(seed)
    queries = {}
    for key, query in dataset.queries.items():
        rare = set(sorted(dict.fromkeys(words[key]), key=lambda word: counts[word])[: rng.randint(1, 3)])
        queries[key] = replace(query, text=" ".join(word for word in words[key] if word in rare))
    return QADataset(dataset.passages, queries, dataset.qrels)


def collection_of(kind: str, data: Path, seed: int) -> QADataset:
    """Return the passages and questions of a kind, with train, dev and test."""
    if kind == "template":
        dataset = template_questions(data, seed)
    elif kind == "key phrases":
        dataset = key_phrase_questions(load_dataset(data / "covidqa"), seed)
    elif kind == "llm":
        train, test = load_dataset(data / "tenk-lyft"), load_dataset(data / "tenk-uber")
        dataset = QADataset(
            train.passages | test.passages, train.queries | test.queries,
            {"train": train.qrels["train"], "test": test.qrels["test"]},
        )  # fmt: skip
    else:
        name = "covidqa" if kind == "people" else "scifact"
        dataset = subset(load_dataset(data / name), OWN_PASSAGES, ("train", "test"), seed)
        dataset = shortened(dataset, seed) if kind == "short" else dataset
    return dataset


def spoilt(dataset: QADataset, quality: str, seed: int) -> QADataset:
    """Assign the training questions to passages at random, if the training is to be bad in this way."""
    if quality != "shuffled":
        return dataset
    train = dataset.qrels["train"] | dataset.qrels.get("dev", {})
    answers = list(train.values())
    random.Random(seed).shuffle(answers)
    mixed = dict(zip(train, answers, strict=True))
    splits = [split for split in ("train", "dev") if split in dataset.qrels]
    return dataset.with_qrels(dataset.qrels | {split: {q: mixed[q] for q in dataset.qrels[split]} for split in splits})


class Encoder:
    """Encodes each text once for each set of weights."""

    def __init__(self, model: SentenceTransformer) -> None:
        self._model = model
        self._vectors: dict[tuple[str, str], NDArray[np.float32]] = {}

    def __call__(self, texts: Sequence[str], role: str) -> NDArray[np.float32]:
        new = [text for text in dict.fromkeys(texts) if (role, text) not in self._vectors]
        if new:
            for text, vector in zip(new, encode(self._model, new, role), strict=True):  # type: ignore[arg-type]
                self._vectors[role, text] = vector
        return np.stack([self._vectors[role, text] for text in texts])

    def values(self, questions: DevQuestions) -> NDArray[np.float64]:
        return questions.values_of(self(questions.query_texts, "query"), self(questions.passage_texts, "document"))

    def general(self) -> float:
        probe = ForgettingProbe.shipped()
        return probe.score_of(self(probe.queries, "query"), self(probe.passages, "document"))


def truth(dataset: QADataset, qrels: Mapping[str, Mapping[str, int]], seed: int) -> DevQuestions:
    """Return test questions that search the whole corpus."""
    part = dataset.with_qrels({"dev": dict(qrels)})
    return DevQuestions.of(part, seed, pool_size=len(dataset.passages))


def with_other(dataset: QADataset, other: QADataset) -> QADataset:
    """Add the passages and test questions of another collection, the latter as the split `other`."""

    def renamed(key: str) -> str:
        return f"other {key}"

    passages = {
        renamed(key): replace(passage, id=renamed(key), doc_id=renamed(passage.document))
        for key, passage in other.passages.items()
    }
    queries = {renamed(key): replace(query, id=renamed(key)) for key, query in other.queries.items()}
    qrels = {
        renamed(query): {renamed(passage): grade for passage, grade in grades.items()}
        for query, grades in other.qrels["test"].items()
    }
    return QADataset(dataset.passages | passages, dataset.queries | queries, dataset.qrels | {"other": qrels})


def measure(kind: str, quality: str, data: Path, seed: int) -> Iterator[dict[str, Any]]:
    """Train once, and yield the values of selection and the truth in both corpora."""
    own = collection_of(kind, data, seed)
    other = subset(load_dataset(data / OTHER[kind]), OTHER_PASSAGES, ("test",), seed)
    own = spoilt(hold_out_dev(own, seed=seed), quality, seed)
    corpora = {"own": own, "other": with_other(own, other)}
    model = load_sentence_transformer("local", max_length=MAX_LENGTH)
    settings = {"learning_rate": 1e-3} if quality == "hot" else {}
    jobs = {
        name: prepare(corpus.with_qrels({s: q for s, q in corpus.qrels.items() if s in ("train", "dev")}), model,
                      Choices(settings=settings, seed=seed, adapt_max_length=False))
        for name, corpus in corpora.items()
    }  # fmt: skip
    recipe = jobs["own"].recipe
    examples = pair_examples(jobs["own"].dataset, recipe, MAX_PAIRS)
    base = copy_weights(model)
    started = time.monotonic()
    tests = {
        name: {
            split: truth(corpus, corpus.qrels[split], seed) for split in ("test", "other") if corpus.qrels.get(split)
        }
        for name, corpus in corpora.items()
    }
    found: dict[str, dict[str, Any]] = {name: {} for name in corpora}

    def record(candidate: str) -> None:
        encoder = Encoder(model)
        for name, job in jobs.items():
            assert isinstance(job.dev, DevQuestions)
            uncovered = job.uncovered.questions if job.uncovered is not None else None
            found[name][candidate] = {
                "dev": encoder.values(job.dev).round(4).tolist(),
                "uncovered": encoder.values(uncovered).round(4).tolist() if uncovered is not None else [],
                "general": round(encoder.general(), 4),
                "truth": {split: encoder.values(test).round(4).tolist() for split, test in tests[name].items()},
            }

    record("base")
    run_trainer(model, examples, recipe)
    tuned = copy_weights(model)
    for alpha in ALPHAS:
        model.load_state_dict(interpolate_weights(base, tuned, alpha))
        record(f"alpha {alpha:g}")
    for name, job in jobs.items():
        assert isinstance(job.dev, DevQuestions)
        uncovered = job.uncovered or UncoveredDocuments(questions=None)
        yield {
            "kind": kind, "quality": quality, "seed": seed, "corpus": name, "pairs": len(examples),
            "passages": len(corpora[name].passages), "seconds": round(time.monotonic() - started),
            "dev_groups": list(map(str, job.dev.groups)), "dev_documents": job.dev.documents,
            "dev_sources": job.dev.sources, "out_of_domain": round(uncovered.out_of_domain, 3),
            "uncovered_groups": list(map(str, uncovered.questions.groups)) if uncovered.questions is not None else [],
            "is_control": uncovered.is_control.tolist(),
            "truth_groups": {split: list(map(str, test.groups)) for split, test in tests[name].items()},
            "candidates": found[name],
        }  # fmt: skip


def measure_arriving(data: Path, seed: int) -> dict[str, Any]:
    """Train with the defaults on template questions, and return the gain on dev and on test."""
    dataset = template_questions(data, seed)
    with tempfile.TemporaryDirectory() as folder:
        result = train_model(dataset, Path(folder) / "model", "local", seed=seed)
        record = read_model_record(Path(folder) / "model")
        tuned = load_sentence_transformer(str(Path(folder) / "model"))
    base = load_sentence_transformer("local", max_length=tuned.max_seq_length)
    encoders = Encoder(base), Encoder(tuned)
    everything = len(dataset.passages)
    questions = {
        "dev among 600": DevQuestions.of(dataset, seed),
        "dev": DevQuestions.of(dataset, seed, everything),
        "test": truth(dataset, dataset.require("test"), seed),
    }
    gains: dict[str, Any] = {}
    for name, each in questions.items():
        before, after = (encoder.values(each) for encoder in encoders)
        gains[name] = {"questions": len(before), "base": round(float(before.mean()), 4),
                       "gain": round(float((after - before).mean()), 4),
                       "interval": str(paired_bootstrap(after - before, each.groups))}  # fmt: skip
    return {
        "seed": seed, "alpha": record["training"]["share"], "selected": str(result), "gains": gains,
        "arrives": round(gains["test"]["gain"] / max(gains["dev"]["gain"], 1e-9), 3),
    }  # fmt: skip


def measure_generated(collection: str, data: Path, seed: int) -> dict[str, Any]:
    """Train on generated questions, and return the gain of each alpha on the collection's own test questions."""
    if collection == "demo":
        nodes = cut_into_nodes(read_documents(acme_folder() / "documents"))
        real = read_questions(acme_folder() / "questions.jsonl")
        dataset = generate_qa_dataset(nodes, use_llm=False, questions=real, seed=seed).dataset
    else:
        dataset = without_labels(subset(load_dataset(data / collection), OWN_PASSAGES, ("test",), seed), 0.2, seed)
    model = load_sentence_transformer("local", max_length=MAX_LENGTH)
    job = prepare(dataset, model, Choices(seed=seed, adapt_max_length=False))
    assert isinstance(job.dev, DevQuestions)
    base, base_dev = copy_weights(model), job.dev.values(model)
    test = truth(dataset, dataset.require("test"), seed)
    before = Encoder(model).values(test)
    run_trainer(model, pair_examples(job.dataset, job.recipe, MAX_PAIRS), job.recipe)
    tuned, gains, dev = copy_weights(model), {}, {}
    for alpha in (0.25, 0.5, 0.75, 1.0):
        model.load_state_dict(interpolate_weights(base, tuned, alpha))
        gains[str(alpha)] = str(paired_bootstrap(Encoder(model).values(test) - before, test.groups))
        dev[str(alpha)] = str(dev_gain(job.dev.values(model) - base_dev, job.dev))
    on_key_phrases = job.dev.base_ndcg(base_dev)
    return {
        "collection": collection,
        "seed": seed,
        "base_on_key_phrases": round(on_key_phrases, 3),
        "allowed_alphas": scale_alphas(job.recipe.alphas, headroom(on_key_phrases)),
        "base_on_test": round(float(before.mean()), 3),
        "gain_on_test": gains,
        "gain_on_dev": dev,
    }


@dataclass
class MeasuredDev:
    """The dev set of a measured training."""

    sources: list[str]
    documents: list[Any]
    groups: list[object]
    metric: str = HEADLINE


Row = dict[str, Any]
Veto = Callable[[NDArray[np.float64], Row, str], str]


def uncovered_of(row: Row, control: bool) -> UncoveredDocuments:
    """Return the uncovered documents of a measured training, with or without the control."""
    questions: Any = MeasuredDev([], [], row["uncovered_groups"])
    is_control = np.array(row["is_control"], dtype=bool)
    if not control:
        questions.groups = [group for group, its in zip(questions.groups, is_control, strict=True) if not its]
        is_control = np.zeros(0, dtype=bool)
    unlike = np.array([group.startswith("other ") for group in map(str, questions.groups)]) & (len(is_control) > 0)
    return UncoveredDocuments(
        questions=questions, is_control=is_control, is_out_of_domain=unlike, out_of_domain=row["out_of_domain"]
    )


def gain_on_unseen(row: Row, candidate: str) -> float | None:
    """Return the mean gain of the dev questions on unseen documents; None if there are few."""
    unseen = np.array([status == "unseen" for status in row["dev_documents"]])
    gains = np.array(row["candidates"][candidate]["dev"]) - np.array(row["candidates"]["base"]["dev"])
    return float(gains[unseen].mean()) if unseen.sum() >= MIN_PART else None


def sentences_alone(differences: NDArray[np.float64], row: Row, _: str = "") -> str:
    """Reject what loses on sentences about uncovered documents: the rule without a control."""
    return uncovered_of(row, control=False).objection_to(differences[~np.array(row["is_control"], dtype=bool)])


def against_control(differences: NDArray[np.float64], row: Row, candidate: str) -> str:
    """Reject what loses there and not on dev's unseen documents too: the rule of rag_ft."""
    return uncovered_of(row, control=True).objection_to(differences, gain_on_unseen(row, candidate))


def spoken_for_by_dev(differences: NDArray[np.float64], row: Row, _: str) -> str:
    """Ask uncovered documents only if they are out of domain, or if dev has no unseen documents."""
    uncovered = uncovered_of(row, control=True)
    unseen = sum(status == "unseen" for status in row["dev_documents"])
    return "" if unseen >= MIN_PART and not uncovered.domain_shift else sentences_alone(differences, row)


RULES: dict[str, Veto | None] = {
    "no veto": None,
    "sentences alone": sentences_alone,
    "spoken for by dev": spoken_for_by_dev,
    "against the control": against_control,
}


def selected_by(rule: str, row: Row, policy: Policy | None = None) -> str:
    """Return the candidate that a rule selects."""
    dev: Any = MeasuredDev(row["dev_sources"], row["dev_documents"], row["dev_groups"])
    values = {
        name: {key: np.array(each[key]) for key in ("dev", "uncovered")} for name, each in row["candidates"].items()
    }
    candidates = [
        Candidate(
            name=name, alpha=float(name != "base"), values=each["dev"], general=row["candidates"][name]["general"]
        )
        for name, each in values.items()
    ]
    veto = RULES[rule]

    def objection(candidate: Candidate) -> str:
        if veto is None or not row["uncovered_groups"]:
            return ""
        return veto(values[candidate.name]["uncovered"] - values["base"]["uncovered"], row, candidate.name)

    return select(candidates[0], candidates[1:], dev, policy, objection).name


def truths(row: Row, candidate: str) -> dict[str, Difference]:
    """Return the true gain of a candidate on the test questions of each collection in the corpus."""
    base, tuned = (row["candidates"][name]["truth"] for name in ("base", candidate))
    return {
        split: paired_bootstrap(np.array(tuned[split]) - np.array(base[split]), groups)
        for split, groups in row["truth_groups"].items()
    }


def errors(rule: str, row: Row) -> tuple[bool, bool, bool]:
    """Return whether a rule refused falsely, whether it accepted falsely, and whether there was a good candidate."""
    chosen = selected_by(rule, row)
    gains = {name: truths(row, name) for name in row["candidates"]}
    good = [
        name
        for name, of in gains.items()
        if of["test"].ci95[0] > 0 and of["test"].mean >= MIN_GAIN and all(each.ci95[1] >= 0 for each in of.values())
    ]
    bad = any(each.ci95[1] < 0 for each in gains[chosen].values())
    return chosen == "base" and bool(good), bad, bool(good)


def table(rows: Sequence[Row]) -> str:
    """Return the errors of all rules as a Markdown table, with what was shipped."""
    titles = ["trainings", "with a good candidate", *(f"{rule}: refused, accepted falsely" for rule in RULES)]
    lines = [f"| question kind | corpus | {' | '.join(titles)} |", "|---" * (len(titles) + 2) + "|"]
    keys = [(kind, corpus) for kind in KINDS for corpus in ("own", "other")]
    for kind, corpus in [*keys, ("all", "own"), ("all", "other")]:
        those = [row for row in rows if kind in (row["kind"], "all") and row["corpus"] == corpus]
        if not those:
            continue
        found = {rule: [errors(rule, row) for row in those] for rule in RULES}
        good = sum(each[2] for each in found["no veto"])
        cells = [f"{sum(e[0] for e in found[rule])}, {sum(e[1] for e in found[rule])}" for rule in RULES]
        lines.append(f"| {kind} | {corpus} | {len(those)} | {good} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def forgetting_table(rows: Sequence[Row]) -> str:
    """Return how many good and bad candidates a limit on the drop of the general score would reject."""
    drops: dict[str, list[float]] = {"good": [], "bad": []}
    for row in rows:
        general = {name: each["general"] for name, each in row["candidates"].items()}
        for name in general.keys() - {"base"}:
            gains = truths(row, name)
            drop = general["base"] - general[name]
            if any(gain.ci95[1] < 0 for gain in gains.values()):
                drops["bad"].append(drop)
            elif gains["test"].ci95[0] > 0:
                drops["good"].append(drop)
    lines = ["| limit | good candidates rejected | bad candidates accepted |", "|---|---|---|"]
    for limit in (0.03, 0.05, 0.07, 0.1, 0.15, 0.2):
        rejected = sum(drop > limit for drop in drops["good"])
        accepted = sum(drop <= limit for drop in drops["bad"])
        lines.append(f"| {limit:g} | {rejected} of {len(drops['good'])} | {accepted} of {len(drops['bad'])} |")
    return "\n".join(lines)


def keep(name: str, found: Any) -> None:
    """Write a part of the results."""
    file = RESULTS / "selection.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    file.write_text(json.dumps(results | {name: found, "machine": machine()}, indent=2) + "\n", encoding="utf-8")


def measure_all(arguments: argparse.Namespace) -> None:
    """Measure every training that the file does not have yet."""
    done = set()
    if arguments.measured.exists():
        rows = map(json.loads, arguments.measured.read_text(encoding="utf-8").splitlines())
        done = {(row["kind"], row["quality"], row["seed"]) for row in rows}
    for seed in arguments.seeds:
        for quality in arguments.qualities:
            for kind in arguments.kinds:
                for row in measure(kind, quality, arguments.data, seed) if (kind, quality, seed) not in done else ():
                    with arguments.measured.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
                    print(kind, quality, seed, row["corpus"], f"{row['seconds']} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("act", choices=["measure", "generated", "arrives", "table"])
    parser.add_argument("collections", nargs="*", help="generated: covidqa, scifact, tenk-uber, demo")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--qualities", nargs="+", default=QUALITIES, choices=QUALITIES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--measured", type=Path, default=Path("/tmp/rag_ft-selection.jsonl"), help="file of all values")
    arguments = parser.parse_args()
    if arguments.act == "measure":
        measure_all(arguments)
    elif arguments.act == "arrives":
        arriving = [measure_arriving(arguments.data, seed) for seed in arguments.seeds]
        print(json.dumps(arriving, indent=1), flush=True)
        keep("arrives", arriving)
    elif arguments.act == "generated":
        found = []
        for seed in arguments.seeds:
            for name in arguments.collections:
                found.append(measure_generated(name, arguments.data, seed))
                print(json.dumps(found[-1], indent=1), flush=True)
                keep("generated", found)
    else:
        rows = [json.loads(line) for line in arguments.measured.read_text(encoding="utf-8").splitlines()]
        tables = {"rules": table(rows), "forgetting": forgetting_table(rows)}
        print(*tables.values(), sep="\n\n")
        keep("tables", {name: text.splitlines() for name, text in tables.items()})


if __name__ == "__main__":
    main()
