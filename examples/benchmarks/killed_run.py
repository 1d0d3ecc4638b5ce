"""The whole job on a folder of documents, killed with SIGKILL at random moments and started again.

    python examples/benchmarks/killed_run.py ../shared/data/handbook --options="--base-model local --llm local"

`--options` go to `rag-ft run`. Prints and writes to results/ how long it took, when it was killed and in
which stage, and how many answers of the LLM the journal holds more than once (none may).
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
    parser.add_argument("--within", type=float, default=600, help="seconds within which a kill comes")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--options", type=shlex.split, default=[], help="of rag-ft run")
    arguments = parser.parse_args()
    output = arguments.output or Path(tempfile.mkdtemp()) / arguments.documents.name
    command = [sys.executable, "-m", "rag_ft.cli", "run", str(arguments.documents), "--output", str(output)]
    command += arguments.options
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    draw = random.Random(arguments.seed)
    started = time.monotonic()
    kills = []
    for _ in range(arguments.kills):
        process = subprocess.Popen(command, env=environment)
        moment = draw.uniform(20, arguments.within)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            stages = (
                list(json.loads((output / "run.json").read_text())["stages"]) if (output / "run.json").exists() else []
            )
            kills.append({"after_seconds": round(moment), "stages_done": stages})
    last = time.monotonic()
    subprocess.run(command, env=environment, check=True)
    journal = output / "journal.jsonl"
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
    asked = Counter(json.loads(line)["key"] for line in lines)
    result = {
        "documents": arguments.documents.name,
        "options": arguments.options,
        "kills": kills,
        "seconds": round(time.monotonic() - started),
        "seconds_of_the_last_start": round(time.monotonic() - last),
        "answers": len(asked),
        "answers_asked_twice": sum(count > 1 for count in asked.values()),
        "comparison": json.loads((output / "comparison.json").read_text(encoding="utf-8")),
        "machine": machine(),
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
    (RESULTS / f"killed-run-{arguments.documents.name}.json").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
