"""Wordings from anywhere: what changes the meaning is rejected, nothing is asked twice, and a key is never written."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import torch

import divlens
from divlens.cli import main
from divlens.errors import DivlensError
from divlens.models import load
from divlens.models.answers import conditions_of
from divlens.paraphrase import from_templates
from divlens.prompts import read_prompts
from divlens.types import Prompt
from divlens.wordings.asking import reworded
from divlens.wordings.endpoint import Endpoint
from divlens.wordings.meaning import why_different
from divlens.wordings.rewriting import Rewriting
from divlens.wordings.similarity import (
    NEEDED,
    SENTENCES,
    TextSimilarity,
    model_similarity,
    sentence_similarity,
    similarity_of,
)
from divlens.wordings.sources import FromFile, LocalModel, Source, SourceError, lines_of

KEY = "sk-very-secret-1234"
TRAPS = [
    ("a man with no hat", "a man with a hat", "negation"),
    ("a man with no hat", "a man with a hat and no shoes", "negation"),
    ("a street without people", "a street with people", "negation"),
    ("a flower that isn't red", "a flower that is red", "negation"),
    ("a flower, not red", "a red flower", "negation"),
    ("a dog", "a dog without a collar", "negation"),
    ("two cats", "three cats", "count"),
    ("two cats", "cats", "count"),
    ("two cats", "a cat", "count"),
    ("a cat", "a pair of cats", "count"),
    ("a cat", "cats", "count"),
    ("two cats and three dogs", "three cats and two dogs", "count"),
    ("3 boats", "several boats", "count"),
    ("a red ball and a blue box", "a blue ball and a red box", "colour"),
    ("a red ball", "a ball", "colour"),
    ("a ball", "a bright green ball", "colour"),
    ("a cat left of a dog", "a dog left of a cat", "place"),
    ("a cat to the left of a dog", "a cat to the right of a dog", "place"),
    ("a cat under a table", "a cat on a table", "place"),
    ("a house behind a tree", "a tree behind a house", "place"),
]
SAME = [
    ("a man with no hat", "a man without a hat"),
    ("a man with no hat", "A picture of a man who is not wearing a hat."),
    ("two cats", "2 cats"),
    ("two cats on a sofa", "a pair of cats sitting on a sofa"),
    ("two cats on a mat", "two felines on a mat"),
    ("a red ball and a blue box", "this picture shows a blue box and a red ball"),
    ("a grey wolf", "there is one gray wolf here"),
    ("a cat left of a dog", "a cat, to the left of a dog"),
    ("a lamp above a desk", "a lamp that hangs over a desk"),
]


@pytest.mark.parametrize(("text", "wording", "kind"), TRAPS)
def test_what_changes_the_meaning_is_seen(text, wording, kind):
    reason = why_different(text, wording)
    assert reason is not None and reason.startswith(f"{kind}: ") and " became " in reason


@pytest.mark.parametrize(("text", "wording"), SAME)
def test_what_means_the_same_is_taken(text, wording):
    assert why_different(text, wording) is None


def test_a_text_and_its_templates_mean_the_same():
    for text, _, _ in TRAPS:
        assert why_different(text, text) is None
        assert [wording for wording in from_templates(text) if why_different(text, wording)] == []


class Fixed:
    """A source of given answers, by prompt; a question without one fails. It counts what it is asked."""

    remembered = True

    def __init__(self, answers: dict[str, list[str]]) -> None:
        self.answers, self.asked = answers, []

    @property
    def identity(self) -> dict[str, object]:
        return {"source": "fixed"}

    def wordings(self, text: str, count: int) -> list[str]:
        self.asked.append(text)
        if text not in self.answers:
            raise SourceError("expected an answer, got none in time")
        return self.answers[text]


def test_wordings_are_checked_and_rejects_are_shown():
    source = Fixed({"two red cats": ["2 red cats", "two cats", "Two red cats.", "2 red cats", "a couple of red cats"]})
    assert isinstance(source, Source)
    found = reworded([Prompt("two red cats", ("red cats, two of them",))], source)
    assert found.prompts[0].paraphrases == ("red cats, two of them", "2 red cats", "a couple of red cats")
    (only,) = found.rejected
    assert (only.prompt, only.wording) == ("two red cats", "two cats") and only.reason.startswith("colour: red")
    assert found.notes == [f"rejected for 'two red cats': 'two cats' ({only.reason})"]


def test_a_similarity_has_a_threshold():
    source = Fixed({"a cat": ["a kitty", "a cat here", "a car"]})
    likeness = {"a kitty": 0.9, "a cat here": 0.8, "a car": float("nan")}
    found = reworded(["a cat"], source, similarity=lambda text, wording: likeness[wording], least=0.85)
    assert found.prompts[0].paraphrases == ("a kitty",)
    assert [one.reason for one in found.rejected] == ["similarity 0.80, below 0.85", "similarity nan, below 0.85"]


def test_nothing_the_same_and_the_wrong_are_a_line_each():
    found = reworded(["a cat", "a dog", "a fox"], Fixed({"a cat": [], "a dog": ["A dog. "], "a fox": ["two foxes"]}))
    assert all(prompt.paraphrases == () for prompt in found.prompts) and len(found.missing) == 3
    assert found.missing[0] == "no other wording of 'a cat': 0 answers, none taken"
    assert "1 answer, none taken" in found.missing[1]


def test_answers_are_kept_and_asked_for_once(tmp_path):
    """Also those of prompts before a failure, and after it those that are kept are used."""
    first = Fixed({"a cat": ["one cat"], "a fox": ["one fox"]})
    found = reworded(["a cat", "a dog", "a fox"], first, answers=tmp_path)
    assert first.asked == ["a cat", "a dog"]  # a source that fails is not asked again
    assert found.prompts[0].paraphrases == ("one cat",) and found.prompts[2].paraphrases == ()
    assert found.missing == ("expected an answer, got none in time: the wordings that were made before are kept",)
    second = Fixed({"a dog": ["one dog"], "a fox": ["one fox"]})
    found = reworded(["a cat", "a dog", "a fox"], second, answers=tmp_path)
    assert second.asked == ["a dog", "a fox"] and found.missing == ()
    assert [prompt.paraphrases for prompt in found.prompts] == [("one cat",), ("one dog",), ("one fox",)]
    third = Fixed({"a cat": ["one cat"]})
    reworded(["a cat"], third, 3, answers=tmp_path)
    assert third.asked == ["a cat"]  # another question
    last = Fixed({})
    assert reworded(["a bird", "a fox"], last, answers=tmp_path).prompts[1].paraphrases == ("one fox",)


def test_a_damaged_answer_is_named(tmp_path):
    reworded(["a cat"], Fixed({"a cat": ["one cat"]}), answers=tmp_path)
    (path,) = (tmp_path / "paraphrases").iterdir()
    path.write_text("{")
    with pytest.raises(DivlensError, match="expects a JSON object with wordings, a list of texts: remove it"):
        reworded(["a cat"], Fixed({}), answers=tmp_path)


def test_a_run_may_have_answers_in_its_folder(tmp_path, monkeypatch):
    from oracles.colour_network import colour_network

    monkeypatch.setattr("divlens.experiment.comparison.load_network", lambda name: colour_network(smallest=21))
    for _ in range(2):
        found = reworded(
            ["a cat", "a fox"], Fixed({"a cat": ["one cat"], "a fox": ["one fox"]}), answers=tmp_path / "run"
        )
        divlens.probe("toy/ar", found.prompts, n=2, conditions=[divlens.Paraphrase(2)], out=str(tmp_path / "run"))
    asked = divlens.open_run(tmp_path / "run").samples["wording"]
    assert {"one cat", "one fox"} <= set(asked) and len(list((tmp_path / "run" / "paraphrases").iterdir())) == 2


def test_templates_and_files_are_sources(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a cat", "paraphrases": ["one cat", "two cats"]}\n')
    for source in (Rewriting(), FromFile(path), LocalModel("nowhere"), Endpoint("http://localhost:1/v1", "m")):
        assert isinstance(source, Source) and json.dumps(source.identity)
    found = reworded(["a cat", "a dog"], FromFile(path))
    assert found.prompts[0].paraphrases == ("one cat",) and len(found.rejected) == len(found.missing) == 1
    assert reworded(["a cat"], Rewriting(), 3).prompts[0].paraphrases == tuple(Rewriting().wordings("a cat", 3))
    with pytest.raises(DivlensError, match="prompt file not found"):
        reworded(["a cat"], FromFile(tmp_path / "none"))
    for bad in (0, 1.5):
        with pytest.raises(DivlensError, match="count expects a whole number"):
            reworded(["a cat"], Rewriting(), bad)  # type: ignore[arg-type]


def test_marks_and_quotes_are_no_part_of_a_wording():
    answer = '1. a cat\n\n- "one cat"\n(3) a single cat\n2 cats\n'
    assert lines_of(answer) == ["a cat", "one cat", "a single cat", "2 cats"]


# --- meaning, by a text encoder --------------------------------------------------------------------------------------


def test_what_a_text_encoder_cannot_read_is_rejected_and_says_why():
    found = reworded(
        ["a cat"], Fixed({"a cat": ["one " * 40 + "cat", "one cat"]}), similarity=model_similarity("toy/ar"), least=-1
    )
    assert found.prompts[0].paraphrases == ("one cat",)
    assert found.rejected[0].reason.startswith("toy/ar:0 reads at most")


def test_the_text_encoder_of_a_model_tells_a_wording_from_another_thing():
    """The words that zoo/mim knows for one thing, against those for others. Without the mean of what it makes of any
    prompt the two would not come apart: the control."""
    similarity = similarity_of("zoo/mim")
    assert isinstance(similarity, TextSimilarity) and similarity.name == "the text encoder of zoo/mim"
    same = [similarity("penguin", f"{start} penguin") for start in ("a", "a picture of a", "an image of the")]
    other = [similarity("penguin", f"a {thing}") for thing in ("rocket", "fox", "airplane")]
    assert min(same) > similarity.least > max(other) + 0.2
    rows = conditions_of(load("zoo/mim"), ["penguin", "a rocket"]).double()
    assert float(torch.cosine_similarity(rows[0], rows[1], dim=0)) > max(other) + 0.2


def test_a_model_without_a_text_encoder_is_refused():
    from oracles import tiny_transformers as tiny

    with pytest.raises(DivlensError, match="has no text encoder: name a sentence encoder"):
        model_similarity(divlens.wrap(*tiny.janus()))


@pytest.fixture(scope="module")
def sentence_encoder(tmp_path_factory):
    """A BERT as sentence encoders are made of, with random weights."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("sentences")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "one", "cat", "dog", "two"]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)
    return folder


def test_a_sentence_encoder_means_over_the_tokens_of_a_text(sentence_encoder):
    from transformers import AutoTokenizer, BertModel

    similarity = sentence_similarity(str(sentence_encoder))
    tokenizer, network = AutoTokenizer.from_pretrained(sentence_encoder), BertModel.from_pretrained(sentence_encoder)
    with torch.no_grad():
        means = [
            network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
            for text in ("a cat", "two dog")
        ]
    expected = float(torch.cosine_similarity(means[0], means[1], dim=0))
    assert similarity("a cat", "two dog") == pytest.approx(expected, abs=1e-5)
    assert similarity("a cat", "a cat") == pytest.approx(1, abs=1e-6) and abs(expected - 1) > 1e-3
    both = similarity.vectors(["a cat", "one a a cat dog"])  # padding counts for nothing
    torch.testing.assert_close(both[0], similarity.vectors(["a cat"])[0])


def test_the_sentence_encoder_is_taken_where_it_is_on_this_machine(sentence_encoder, monkeypatch):
    assert similarity_of() is None  # the control: there is none
    there = {name: str(sentence_encoder / name) for name in NEEDED}
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repository, name: there.get(name))
    found = similarity_of("zoo/mim")
    assert found is not None and found.name == f"the sentence encoder {SENTENCES}"
    assert found("a cat", "a dog") == pytest.approx(sentence_similarity(str(sentence_encoder))("a cat", "a dog"))
    del there["model.safetensors"]  # nothing is downloaded for it
    assert similarity_of() is None


def test_what_is_no_sentence_encoder_is_one_line(sentence_encoder, tmp_path):
    with pytest.raises(DivlensError, match=r"lacks config.json, tokenizer_config.json"):
        sentence_similarity(str(tmp_path))
    for path in sentence_encoder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(DivlensError, match="expects the configuration and weights of a BertModel") as error:
        sentence_similarity(str(tmp_path))
    assert "\n" not in str(error.value)


# --- a language model on this machine -------------------------------------------------------------------------------


def test_a_local_model_is_asked_and_its_nonsense_is_no_wording(tmp_path):
    """Random weights answer something or nothing; what counts is that it is asked and that the same comes again."""
    from transformers.models.llama.configuration_llama import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    from oracles import tiny_transformers as tiny

    words = tiny.tokenizer([], tiny.EXTRA, begins=True)
    tiny.saved((LlamaForCausalLM(LlamaConfig(**tiny.text_sizes(words, positions=1024))), words), tmp_path)
    source = LocalModel(str(tmp_path))
    assert source.wordings("a cat", 1) == source.wordings("a cat", 1)
    found = reworded(["a cat"], LocalModel(str(tmp_path / "nowhere")))
    assert len(found.missing) == 1 and "expected a language model of transformers at" in found.missing[0]


# --- an endpoint ----------------------------------------------------------------------------------------------------

Answer = Callable[[int], tuple[int, Any]]


@contextmanager
def serving(answer: Answer) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server whose k-th answer is `answer(k)`, a status and a body; its address, and what it was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append({"path": self.path, "key": self.headers["Authorization"], **body})
            status, content = answer(len(asked) - 1)
            self.send_response(status, content if isinstance(content, str) else None)
            if status == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()
            if status == 200:
                self.wfile.write(json.dumps(content).encode())

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def chat(text: str) -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}}]}


def quick(url: str, **changes: Any) -> Endpoint:
    return Endpoint(url, "tiny", **{"timeout": 5.0, "tries": 3, "wait": 0.001, **changes})


def test_an_endpoint_is_asked_once_and_its_key_is_written_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(lambda _: (200, chat("1. one cat\n2. two cats\n"))) as (url, asked):
        for _ in range(2):
            found = reworded(["a cat"], quick(url), answers=tmp_path)
        assert found.prompts[0].paraphrases == ("one cat",) and [one.wording for one in found.rejected] == ["two cats"]
        (question,) = asked
    assert question["path"] == "/v1/chat/completions" and question["model"] == "tiny"
    assert question["key"] == f"Bearer {KEY}" and "a cat" in question["messages"][0]["content"]
    assert KEY not in repr(quick(url)) and not [path for path in tmp_path.rglob("*.json") if KEY in path.read_text()]
    assert len(list(tmp_path.rglob("*.json"))) == 1


def test_without_a_key_none_is_sent(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("ANOTHER", KEY)
    with serving(lambda _: (200, chat("one cat"))) as (url, asked):
        quick(url).wordings("a cat", 2)
        quick(url, key="ANOTHER").wordings("a cat", 2)
    assert [question["key"] for question in asked] == [None, f"Bearer {KEY}"]


def test_what_may_pass_is_tried_again(monkeypatch):
    waited: list[float] = []
    monkeypatch.setattr("divlens.wordings.endpoint.time.sleep", waited.append)
    with serving(lambda k: (200, chat("one cat")) if k == 2 else (503 - 74 * k, "busy")) as (url, asked):
        assert quick(url, wait=1.0).wordings("a cat", 2) == ["one cat"]
    assert len(asked) == 3 and waited == [1.0, 2.0]


@pytest.mark.parametrize(
    ("status", "content", "tries", "message"),
    [
        (401, f"no such key {KEY}", 1, r"got 401 no such key \.\.\."),
        (404, "no such model", 1, "got 404 no such model"),
        (429, "slow down", 3, "got 429 slow down"),
        (302, "over there", 1, "got 302 over there"),  # another address would be handed the key
        (200, {"error": "x"}, 1, r"got an answer without choices\[0\]"),
    ],
)
def test_a_refusal_is_one_line_without_the_key(monkeypatch, status, content, tries, message):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(lambda _: (status, content)) as (url, asked):
        found = reworded(["a cat", "a dog"], quick(url))
    (line,) = found.missing
    assert re.search(message, line) and KEY not in line and "\n" not in line
    assert len(asked) == tries and [prompt.text for prompt in found.prompts] == ["a cat", "a dog"]


def test_an_endpoint_that_is_silent_or_gone_is_one_line():
    held = threading.Event()

    def silent(_: int) -> tuple[int, Any]:
        held.wait(2)
        return 200, chat("one cat")

    with serving(silent) as (url, _):
        (line,) = reworded(["a cat"], quick(url, timeout=0.05, tries=1)).missing
        held.set()
    assert "timed out" in line
    (line,) = reworded(["a cat"], quick(url, tries=2)).missing  # nobody is there any more
    assert "refused" in line and "\n" not in line


@pytest.mark.parametrize(
    "url", ["localhost:8000", "file:///etc/passwd", "http://", f"http://me:{KEY}@host/v1", "http://h/?key=1"]
)
def test_an_address_that_is_none_or_has_a_key_is_refused(url):
    with pytest.raises(DivlensError, match="an endpoint expects") as error:
        Endpoint(url, "tiny")
    assert KEY not in str(error.value)


# The command


def test_the_command_checks_meaning_by_a_text_encoder_and_says_so(capsys):
    main(["reword", "a small fox", "--for", "zoo/mim", "--seed", "1"])
    out, err = capsys.readouterr()
    assert "and by the text encoder of zoo/mim" in err and "rejected for 'a small fox': 'little fox' (similarity" in err
    assert out.splitlines()[0] == "a small fox" and "little" not in out
    main(["reword", "a small fox", "--seed", "1"])
    out, err = capsys.readouterr()
    assert err == "meaning is checked word by word\n" and "little" in out  # the control
    with pytest.raises(SystemExit) as stopped:
        main(["reword", "a small fox", "--least", "0.5"])
    assert stopped.value.code == 2 and "--least needs a text encoder" in capsys.readouterr().err


def test_the_command_writes_a_prompt_file_that_others_read(tmp_path, capsys):
    out = tmp_path / "prompts.jsonl"
    main(["reword", "two cats", "a caf\u00e9", "-n", "3", "--out", str(out)])
    assert capsys.readouterr().out.endswith("6 wordings of 2 prompts\n")
    assert tuple(read_prompts(out)) == reworded(["two cats", "a caf\u00e9"], Rewriting(), 3).prompts
    before = out.read_bytes()
    with pytest.raises(SystemExit) as stopped:
        main(["reword", "a fox", "--out", str(out)])
    assert stopped.value.code == 2 and "exists: name another file" in capsys.readouterr().err
    assert out.read_bytes() == before
    main(["reword", "a fox", "--out", str(out), "--force"])
    assert [prompt.text for prompt in read_prompts(out)] == ["a fox"]


def test_the_command_asks_an_endpoint_and_says_what_it_rejected(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    said_back = {"choices": [{"message": {"content": "a couple of cats\nthree cats"}}]}
    with serving(lambda k: (200, said_back)) as (url, asked):
        arguments = ["reword", "two cats", "--endpoint", url, "--model", "m", "--key", "MY_KEY"]
        main([*arguments, "--answers", str(tmp_path / "kept")])
        main([*arguments, "--answers", str(tmp_path / "kept")])  # nothing is asked twice
    assert [one["key"] for one in asked] == [f"Bearer {KEY}"]
    said = capsys.readouterr()
    assert said.out == "two cats\na couple of cats\n" * 2
    assert "rejected for 'two cats': 'three cats'" in said.err and KEY not in said.err + said.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a cat", "--endpoint", "http://localhost:1/v1"], "--endpoint and --model go together"),
        (["a cat", "--endpoint", "ftp://x", "--model", "m"], "expects an address such as"),
        (["a cat", "--local", "x", "--endpoint", "http://localhost:1/v1", "--model", "m"], "got both"),
        ([], "expected a prompt"),
        (["a cat", "-n", "0"], "got 0"),
    ],
)
def test_what_the_command_cannot_do_is_a_line(arguments, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["reword", *arguments])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and said in error and "Traceback" not in error
