"""`rag-ft run` on a folder of documents, killed with SIGKILL at random moments and started again.

    python examples/benchmarks/killed_run.py ../shared/data/handbook --options="--base-model local --llm local"

`--options` are passed on to `rag-ft run`. The script prints how long the run took, when and in which stage it was
killed, and how many of the LLM's answers are in the journal more than once, of which there must be none. Results are in
results/.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from quality import RESULTS, machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", type=Path)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--within", type=float, default=600, help="maximum seconds until a kill")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--options", type=shlex.split, default=[], help="options of rag-ft run")
    arguments = parser.parse_args()
    output = arguments.output or Path(tempfile.mkdtemp()) / arguments.documents.name
    command = [sys.executable, "-m", "rag_ft.cli", "run", str(arguments.documents), "--output", str(output)]
    command += arguments.options
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    rng = random.Random(arguments.seed)
    started = time.monotonic()
    kills = []
    for _ in range(arguments.kills):
        process = subprocess.Popen(command, env=environment)
        seconds = rng.uniform(20, arguments.within)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            stages = (
                list(json.loads((output / "run.json").read_text())["stages"]) if (output / "run.json").exists() else []
            )
            kills.append({"after_seconds": round(seconds), "stages_done": stages})
    restarted = time.monotonic()
    subprocess.run(command, env=environment, check=True)
    journal = output / "journal.jsonl"
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
    answers = Counter(json.loads(line)["key"] for line in lines)
    result = {
        "documents": arguments.documents.name,
        "options": arguments.options,
        "kills": kills,
        "seconds": round(time.monotonic() - started),
        "seconds_of_the_last_start": round(time.monotonic() - restarted),
        "answers": len(answers),
        "answers_asked_twice": sum(count > 1 for count in answers.values()),
        "comparison": json.loads((output / "comparison.json").read_text(encoding="utf-8")),
        "machine": machine(),
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
    (RESULTS / f"killed-run-{arguments.documents.name}.json").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
