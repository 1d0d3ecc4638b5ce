"""Peak memory of a training step at several batch sizes, with and without the cached loss.

    python examples/benchmarks/memory.py 64 1024

Each size runs in a process of its own, with texts of 128 tokens. The figures are MB above the memory of the process
before the step. Results are in results/memory.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys

from quality import RESULTS, machine


def step(batch_size: int, inner_batch: int) -> float:
    """Return the peak memory of one training step, in MB above the memory before it."""
    from rag_ft import Recipe
    from rag_ft.embedding.loading import load_sentence_transformer
    from rag_ft.training.examples.training_example import TrainingExample
    from rag_ft.training.loop.trainer import run_trainer

    model = load_sentence_transformer("local", max_length=128)

    def pairs(count: int) -> list[TrainingExample]:
        words = ["harbour", "crane", "badge", "leave", "tide", "cargo", "quay", "night", "claim", "form"]
        return [
            TrainingExample(f"question {n} {words[n % 10]}", f"passage {n} " + " ".join(words * 20), frozenset([n]))
            for n in range(count)
        ]

    recipe = Recipe(epochs=1, similar_per_batch=1, batch_size=inner_batch, inner_batch=inner_batch)
    # Loads the optimizer and the libraries.
    run_trainer(model, pairs(8), recipe.with_settings({"batch_size": 8}), max_steps=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run_trainer(model, pairs(batch_size), recipe.with_settings({"batch_size": batch_size}), max_steps=1)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="+", type=int)
    parser.add_argument("--inner-batch", type=int, default=32)
    parser.add_argument("--one", action="store_true", help="measure the one size in this process, and print its peak")
    arguments = parser.parse_args()
    if arguments.one:
        print(step(arguments.sizes[0], arguments.inner_batch))
        return
    peaks = {}
    for size in arguments.sizes:
        for inner in (arguments.inner_batch, *([size] if size <= 256 else [])):
            command = [sys.executable, __file__, str(size), "--inner-batch", str(inner), "--one"]
            peak = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
            name = f"batch {size}, {inner} at once"
            peaks[name] = round(peak)
            print(f"{name}: {peak:.0f} MB", flush=True)
    (RESULTS / "memory.json").write_text(json.dumps({"peak_mb": peaks, "machine": machine()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
