"""Questions about your own documents: generated, filtered, reviewed by a person, and tested on real ones.

    python examples/questions.py docs/ data/                                  # without an LLM
    python examples/questions.py docs/ data/ --llm openai:gpt-4.1-mini        # the key comes from the environment
    python examples/questions.py docs/ data/ --real asked.csv                 # columns: question, passage (or document)

The first run writes data/ and data-questions.csv. Write "no" into the column `keep` of a bad question, or fix its text,
and run the script again. The LLM's answers then come from the journal, and rejected questions do not come back.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rag_ft import cut_into_nodes, generate_qa_dataset, inspect_dataset, read_documents
from rag_ft.dataset import Review, export_questions, read_questions, review_folder, write_beir
from rag_ft.generation import Filters, QuestionOptions
from rag_ft.generation.resolve_llm import resolve_llm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--llm", default="none")
    parser.add_argument("--real", type=Path, help="questions that people asked; they become the test split")
    arguments = parser.parse_args()

    sheet = arguments.dataset.with_name(f"{arguments.dataset.name}-questions.csv")
    if sheet.exists():
        review_folder(arguments.dataset, sheet)
    review = Review.load(arguments.dataset)

    llm = resolve_llm(arguments.llm)
    generated = generate_qa_dataset(
        cut_into_nodes(read_documents(arguments.documents)),
        llm,
        use_llm=llm is not None,
        questions=read_questions(arguments.real) if arguments.real else (),
        question_options=QuestionOptions(
            filters=Filters(round_trip="bm25", depth=20),
            journal=arguments.dataset.with_name(f"{arguments.dataset.name}.journal.jsonl") if llm else None,
            show_progress=True,
        ),
    )
    dataset, rejected = review.apply(generated.dataset)
    write_beir(dataset, arguments.dataset, generated.dropped + rejected)
    export_questions(dataset, sheet)

    print(dataset)
    print(
        f"{len(generated.dropped)} questions were dropped, and you rejected {len(rejected)}; review the rest in {sheet}"
    )
    for warning in inspect_dataset(dataset).warnings:
        print("!", warning)


if __name__ == "__main__":
    main()
