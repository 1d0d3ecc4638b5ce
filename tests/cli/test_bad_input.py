"""Bad input through the real command line: one clear line, the right exit code, and nothing left behind."""

import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.command_line import OUTSIDE, WRONG, rag_ft

from rag_ft.cli.inputs import recipe_settings
from rag_ft.errors import InputError
from rag_ft.index.chroma import open_chroma

COMMANDS = ["demo", "run", "generate", "train", "index", "compare", "inspect", "review"]


def everything_in(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """Runs a command that must fail with a code; gives its one line."""

    def run(code: int, *arguments: object, **options: object) -> str:
        before = everything_in(tmp_path)
        done = rag_ft(*arguments, **options)
        assert "Traceback" not in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("rag-ft: ")
        assert len(done.stderr) < 500
        assert done.returncode == code, done.stderr
        assert {path.name for path in map(Path, everything_in(tmp_path).keys() - before.keys())} == set()
        assert done.stdout == ""
        return done.stderr

    return run


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    for number in range(12):
        (folder / f"form{number}.md").write_text(
            f"# Form T-{number}\n\nForm T-{number} is signed by the master of harbour {number} before the ship sails.\n"
        )
    return folder


def test_help_names_every_command() -> None:
    done = rag_ft("--help")
    assert done.returncode == 0
    assert [command for command in COMMANDS if f" {command} " in done.stdout] == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help(command: str) -> None:
    done = rag_ft(command, "--help")
    assert done.returncode == 0
    assert "--quiet" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "documents"],
        ["train"],
        ["compare", "dataset", "--baseline", "local"],
        ["teach"],
        ["train", "dataset", "--output", "model", "--max-length", "short"],
    ],
)
def test_a_wrong_use_ends_with_2_and_without_a_traceback(arguments: list[str]) -> None:
    done = rag_ft(*arguments)
    assert done.returncode == WRONG
    assert done.stderr.startswith("rag-ft: ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_a_missing_folder(refused: Callable[..., str], tmp_path: Path) -> None:
    said = refused(WRONG, "generate", tmp_path / "nowhere", "--output", tmp_path / "dataset")
    assert f"{tmp_path / 'nowhere'} does not exist" in said


def test_an_empty_folder(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    assert "it is empty" in refused(WRONG, "generate", tmp_path / "documents", "--output", tmp_path / "dataset")


def test_a_folder_of_images(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    for number in range(3):
        (tmp_path / "documents" / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xff")
    said = refused(WRONG, "generate", tmp_path / "documents", "--output", tmp_path / "dataset")
    assert "contains no documents (.png)" in said


def test_documents_of_one_word(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    for number in range(5):
        (tmp_path / "documents" / f"{number}.md").write_text("Hello\n")
    said = refused(WRONG, "generate", tmp_path / "documents", "--output", tmp_path / "dataset")
    assert "too short" in said


def test_a_line_of_20_megabytes(refused: Callable[..., str], beir_folder: Path, tmp_path: Path) -> None:
    with (beir_folder / "corpus.jsonl").open("ab") as file:
        file.write(b'{"_id": "export", "text": "' + b"x" * 20_000_000 + b'"}\n')
    said = refused(WRONG, "train", beir_folder, "--output", tmp_path / "model", "--base-model", "local")
    assert f"{beir_folder / 'corpus.jsonl'}:25: a line of more than 10 MB" in said


def test_a_document_that_is_not_utf8(refused: Callable[..., str], documents: Path, tmp_path: Path) -> None:
    (documents / "old.txt").write_bytes("Der Hafen\nist für alle da".encode("latin-1"))
    said = refused(WRONG, "generate", documents, "--output", tmp_path / "dataset")
    assert f"{documents / 'old.txt'}:2: byte 0xfc is not UTF-8" in said


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("qrels/train.tsv", "q0\tnobody\t1\n", "the passage id 'nobody' is not in corpus.jsonl"),
        ("qrels/train.tsv", "nobody\td0#0\t1\n", "the query id 'nobody' is not in queries.jsonl"),
        ("corpus.jsonl", '{"_id": "d0#0", "text": "again"}\n', "the id 'd0#0' was used before"),
        ("queries.jsonl", '{"_id": "q0", "text": "again"}\n', "the id 'q0' was used before"),
        ("corpus.jsonl", '{"_id": "half', "not valid JSON"),
    ],
)
def test_a_broken_dataset(
    file: str, line: str, said: str, refused: Callable[..., str], beir_folder: Path, tmp_path: Path
) -> None:
    with (beir_folder / file).open("a") as stream:
        stream.write(line)
    number = len((beir_folder / file).read_text().splitlines())
    line = refused(WRONG, "train", beir_folder, "--output", tmp_path / "model", "--base-model", "local")
    assert f"{beir_folder / file}:{number}: " in line
    assert said in line


def test_an_empty_split(refused: Callable[..., str], beir_folder: Path, tmp_path: Path) -> None:
    (beir_folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n")
    said = refused(WRONG, "train", beir_folder, "--output", tmp_path / "model", "--base-model", "local")
    assert "no questions in split 'train' (splits with questions: dev, test)" in said


def test_a_model_folder_without_weights(refused: Callable[..., str], beir_folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    said = refused(WRONG, "compare", beir_folder, "--baseline", "local", "--candidate", model)
    assert f"{model} has no .safetensors file" in said
    assert "pytorch_model.bin, a pickle" in said


def test_a_hub_that_is_not_reached(refused: Callable[..., str], beir_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "chroma"
    said = refused(
        OUTSIDE, "index", beir_folder, "--model", "nobody/nothing", "--collection", "forms", "--chroma", output
    )
    assert "nobody/nothing cannot be loaded from the hub" in said
    assert "--base-model local" in said


def test_a_chroma_folder_that_is_none(refused: Callable[..., str], beir_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "chroma" / "chroma.sqlite3"
    file.parent.mkdir()
    file.write_text("my notes\n" * 100)
    said = refused(WRONG, "index", beir_folder, "--model", "local", "--collection", "forms", "--chroma", file.parent)
    assert f"{file.parent} cannot be opened as a Chroma folder" in said
    assert file.read_text() == "my notes\n" * 100


def test_a_folder_of_notes_does_not_become_a_chroma_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("my notes")
    with pytest.raises(InputError, match="is not empty and not a Chroma folder"):
        open_chroma(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_chroma_server_that_is_down(refused: Callable[..., str], beir_folder: Path) -> None:
    address = "http://127.0.0.1:9"
    said = refused(OUTSIDE, "index", beir_folder, "--model", "local", "--collection", "forms", "--chroma", address)
    assert f"the Chroma server {address} does not answer" in said


@pytest.mark.parametrize("address", ["http://127.0.0.1:port", "https://127.0.0.1:99999"])
def test_an_address_with_a_wrong_port(address: str) -> None:
    with pytest.raises(InputError, match=f"{address} is not an address"):
        open_chroma(address)


def test_an_output_that_is_a_file(refused: Callable[..., str], documents: Path, beir_folder: Path) -> None:
    file = documents / "form0.md"
    before = file.read_text()
    assert f"{file} is a file" in refused(WRONG, "generate", documents, "--output", file)
    assert f"{file} is in the way" in refused(WRONG, "train", beir_folder, "--output", file, "--base-model", "local")
    assert file.read_text() == before


def test_an_llm_of_a_nonsense_name(refused: Callable[..., str], documents: Path, tmp_path: Path) -> None:
    said = refused(WRONG, "generate", documents, "--output", tmp_path / "dataset", "--llm", "nonsense")
    assert "--llm 'nonsense'" in said


@pytest.mark.slow
def test_an_llm_that_always_fails(refused: Callable[..., str], documents: Path, tmp_path: Path) -> None:
    """The LLM is an installed package like any other: its server is down."""
    package = tmp_path / "installed" / "llama_index" / "llms" / "down"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "from llama_index.core.llms import CustomLLM, LLMMetadata\n"
        "class Down(CustomLLM):\n"
        "    model: str\n"
        "    @property\n"
        "    def metadata(self):\n"
        "        return LLMMetadata(model_name=self.model)\n"
        "    def complete(self, prompt, formatted=False, **kwargs):\n"
        "        raise ConnectionError('connection refused\\nby 127.0.0.1')\n"
        "    stream_complete = complete\n"
    )
    said = refused(
        OUTSIDE, "generate", documents, "--output", tmp_path / "dataset", "--llm", "down:x", "--quiet", "--workers", 12,
        modules=tmp_path / "installed",
    )  # fmt: skip
    assert "consecutive calls failed (the LLM failed: connection refused)" in said


def test_a_file_too_large_for_the_disk(refused: Callable[..., str], documents: Path, tmp_path: Path) -> None:
    """A limit on the size of a file stands for a full disk: both break off the write."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    said = refused(OUTSIDE, "generate", documents, "--output", tmp_path / "dataset", before=limit)
    assert "no space left on the disk" in said


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 100 kB, where one may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here: root may")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full(beir_folder: Path, full_disk: Path) -> None:
    done = rag_ft("index", beir_folder, "--model", "local", "--collection", "forms", "--chroma", full_disk, "-q")
    assert done.returncode == OUTSIDE, done.stderr
    assert done.stderr.count("\n") == 1
    assert "no space left on the disk" in done.stderr


@pytest.mark.parametrize("option", [["--style", "keywords"], ["--batch"], ["--answers"], ["--llm-url", "http://x/v1"]])
def test_an_option_that_needs_an_llm(
    refused: Callable[..., str], documents: Path, tmp_path: Path, option: list[str]
) -> None:
    said = refused(WRONG, "generate", documents, "--output", tmp_path / "dataset", *option)
    assert f"{option[0]} needs an LLM" in said


def test_an_openai_llm_without_a_key(
    refused: Callable[..., str], documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    said = refused(WRONG, "generate", documents, "--output", tmp_path / "dataset", "--llm", "openai:gpt-4.1-mini")
    assert "set OPENAI_API_KEY in the environment" in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("warmup", "--set 'warmup': use SETTING=VALUE, such as --set warmup=0.05"),
        ("seed=1", "--set 'seed=1': use SETTING=VALUE, such as --set warmup=0.05 (the seed is --seed)"),
        ("max_length=128", "the recipe has no 'max_length'"),
        ("warmup=much", "warmup is 'much': use a number from 0 to 1"),
    ],
)
def test_a_setting_that_no_recipe_has(
    refused: Callable[..., str], beir_folder: Path, tmp_path: Path, given: str, said: str
) -> None:
    arguments = ["train", beir_folder, "--output", tmp_path / "model", "--base-model", "local", "--set", given]
    assert said in refused(WRONG, *arguments)


def test_settings_are_read_as_they_are_meant() -> None:
    given = ["warmup=0.05", "shares=[1.0, 0.5]", "dropout=True", "loss=gist", "dimensions=[128]"]
    assert recipe_settings(given) == {
        "warmup": 0.05, "shares": (1.0, 0.5), "dropout": True, "loss": "gist", "dimensions": (128,),
    }  # fmt: skip


def test_columns_without_their_file(refused: Callable[..., str], documents: Path, tmp_path: Path) -> None:
    arguments = ["generate", documents, "--output", tmp_path / "dataset", "--field"]
    assert "--field 'query=frage' needs --questions" in refused(WRONG, *arguments, "query=frage")


def test_a_review_is_not_overwritten(refused: Callable[..., str], beir_folder: Path) -> None:
    sheet = beir_folder.parent / "mine.csv"
    assert rag_ft("review", beir_folder, "--export", sheet).returncode == 0
    assert f"{sheet} exists, and may hold a review" in refused(WRONG, "review", beir_folder, "--export", sheet)


def test_llama_indexs_form_has_a_file_for_each_split(documents: Path, tmp_path: Path) -> None:
    for number in range(6, 30):
        (documents / f"form{number}.md").write_text(
            f"# Form K-{number}\n\nForm K-{number} is kept by clerk {number * 3} of the old harbour until spring.\n"
        )
    done = rag_ft("generate", documents, "--output", tmp_path / "data.json", "--format", "llama-index")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.glob("data*.json")} == {"data.json", "data.dev.json", "data.test.json"}
