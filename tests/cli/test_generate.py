"""tinyplm generate as a user runs it."""

from __future__ import annotations

import pytest

import tinyplm
from tests.families.test_gpt2 import tiny
from tests.support.later_tokens import later
from tinyplm import hub
from tinyplm.families import transformer
from tinyplm.tokenizers import Tokenizer


@pytest.fixture
def generate(run):
    """generate(folder, "--tokens", 5) -> what it printed; generate.refused -> its line of error."""

    def given(folder, *arguments):
        done = run("generate", "--model", folder, *arguments)
        assert done.code == 0, done.err
        return done

    def refused(folder, *arguments, code=2):
        done = run("generate", "--model", folder, *arguments)
        assert done.code == code and done.err.count("\n") == 1 + (code == 130), done
        return done.err.strip()

    given.refused = refused
    return given


def saved(folder, padding=0, special_tokens=("<|endoftext|>",)):
    """Saves a tiny model whose table has `padding` more rows than its tokenizer has ids."""
    tokenizer = Tokenizer.train(["a few words, a few more words"], 262, special_tokens)
    model = tiny(vocab_size=tokenizer.vocab_size + padding)
    model.tokenizer = tokenizer
    tinyplm.save(model, folder)
    return folder


def test_it_follows_best_in_a_run_folder(generate, tmp_path):
    saved(tmp_path / "step-2")
    (tmp_path / "best").write_text("step-2\n")
    from_run = generate(tmp_path, "--prompt", "a few", "--tokens", 5).out
    assert from_run.startswith("a few") and generate(tmp_path / "step-2", "--prompt", "a few", "--tokens", 5).out == from_run
    (tmp_path / "best").write_text("step-3\n")
    assert "best: expected the name of a checkpoint folder, got step-3" in generate.refused(tmp_path)


def test_a_run_of_several_models_names_them(generate, tmp_path):
    (tmp_path / "run.json").write_text("{}")
    assert "expected a run with a checkpoint, got one without any" in generate.refused(tmp_path)
    for name in ("together", "count"):
        saved(tmp_path / name / "step-2")
        (tmp_path / name / "latest").write_text("step-2\n")
    folders = f"{tmp_path / 'count'}, {tmp_path / 'together'}"
    assert f"got one of several models: {folders}" in generate.refused(tmp_path)
    generate(tmp_path / "count", "--prompt", "a few", "--tokens", 2)


def test_it_draws_only_what_the_tokenizer_has(generate, tmp_path):
    saved(tmp_path, padding=3000)
    generate(tmp_path, "--tokens", 30, "--samples", 3, "--temperature", 9, "--top-p", 1)


def test_it_needs_a_prompt_without_an_end_token(generate, tmp_path):
    saved(tmp_path, special_tokens=())
    assert "--prompt: expected a text, since the tokenizer has no token to start a document" in generate.refused(tmp_path)
    generate(tmp_path, "--prompt", "a", "--tokens", 3)


@pytest.mark.parametrize(("error", "message", "code"), [
    (KeyboardInterrupt(), "tinyplm: interrupted", 130), (PermissionError("locked"), "tinyplm: locked", 2),
    (FloatingPointError("nan"), "tinyplm: nan", 2),
])  # fmt: skip
def test_it_fails_in_one_line(generate, monkeypatch, tmp_path, error, message, code):
    def load(*_, **__):
        raise error

    monkeypatch.setattr(hub, "load", load)
    assert generate.refused(tmp_path, code=code) == message


def test_it_shows_log_probabilities_and_stops_at_a_text(generate, tmp_path):
    saved(tmp_path)
    options = ("--prompt", "a few", "--tokens", 12, "--temperature", 0)
    text, *lines = generate(tmp_path, *options, "--show-log-probabilities").out.split("\n\n", 1)
    rows = [line.split(maxsplit=1) for line in lines[0].split("\n") if line.strip()]
    assert text.startswith("a few") and len(rows) == 13 and rows[-1][1] == "total"
    assert abs(sum(float(p) for p, _ in rows[:-1]) - float(rows[-1][0])) < 13 * 1e-4  # each is shown with four digits
    stop = text[len("a few") + 2 :][:2]
    shown = generate(tmp_path, *options, "--stop", stop.replace("\n", "\\n")).out.removesuffix("\n\n")
    assert shown == text[: text.index(stop, len("a few"))]


def test_it_searches_with_beams(generate, tmp_path):
    model = tinyplm.load(saved(tmp_path))
    options = ("--prompt", "a few", "words", "--tokens", 6, "--beams", 3, "--samples", 2, "--dtype", "float64")
    printed = generate(tmp_path, *options, "--show-log-probabilities").out
    prompts = [model.tokenizer.prompt(text) for text in ("a few", "words")]
    found = tinyplm.beam_search(model.astype("float64"), prompts, beams=3, results=2, max_new_tokens=6)
    texts = [
        f"{('a few', 'words')[h.prompt]}{h.text}\n\n{h.log_probability:>10.4f}  total, {h.score:.4f} a token\n" for h in found
    ]
    assert printed == "".join(f"{text}\n" for text in texts)
    assert "--stop: expected none with --beams" in generate.refused(tmp_path, *options, "--stop", "x")
    assert "--samples: expected at most 1 --beams, got 2" in generate.refused(tmp_path, *options, "--beams", 1)


def test_it_takes_a_draft(generate, tmp_path):
    saved(tmp_path / "target")
    saved(tmp_path / "draft")
    options = ("--prompt", "a few", "--tokens", 12, "--temperature", 0)
    plain = generate(tmp_path / "target", *options).out
    draft = ("--draft", tmp_path / "draft", "--draft-length", 3)
    found = generate(tmp_path / "target", *options, *draft)
    assert found.out == plain and "2 of 2 checked proposals accepted, 1.22 tokens per pass" in found.err
    assert "--draft: expected none with --beams" in generate.refused(tmp_path / "target", "--beams", 2, *draft)
    assert "--draft-length: expected an integer >= 1, got 0" in generate.refused(tmp_path / "target", "--draft-length", 0)
    assert generate.refused(tmp_path / "target", "--draft", tmp_path / "none").startswith("tinyplm: --draft: expected the folder")
    tinyplm.save(tiny(vocab_size=200), tmp_path / "other")
    message = generate.refused(tmp_path / "target", "--draft", tmp_path / "other")
    assert message == "tinyplm: draft: expected a model of the target's 262 tokens, got one of 200"


def test_the_models_own_modules_are_a_draft(generate, tmp_path):
    model = later(2, vocab_size=262, max_position_embeddings=40)
    model.tokenizer = tinyplm.load(saved(tmp_path / "gpt2")).tokenizer
    tinyplm.save(model, tmp_path / "own")
    options = ("--prompt", "a few", "--tokens", 12, "--temperature", 0, "--dtype", "float64")
    plain = generate(tmp_path / "own", *options).out
    found = generate(tmp_path / "own", *options, "--draft", "modules")
    assert found.out == plain and "checked proposals accepted" in found.err
    message = generate.refused(tmp_path / "gpt2", *options, "--draft", "modules")
    assert "task: expected one of causal_lm, " in message and message.endswith("got 'multi_token_lm'")


def test_an_encoder_decoder_reads_whole_sources(generate, tmp_path):
    """With the special tokens that it was trained with: a mask in the text, and the end token."""
    special = ("<pad>", "</s>", "<unk>", "<extra_id_0>")
    tokenizer = Tokenizer.train(["a few words, a few more words"], 262, special, kind="Unigram")
    sizes = {"num_layers": 1, "d_model": 8, "num_heads": 2, "d_kv": 4, "d_ff": 8, "vocab_size": tokenizer.vocab_size}
    model = tinyplm.create("t5", **sizes, key=1)
    model.tokenizer = tokenizer
    tinyplm.save(model, tmp_path)
    source = [*tokenizer.encode("a "), 3, *tokenizer.encode("words"), 1]
    assert source == tinyplm.load(tmp_path).tokenizer.encode("a <extra_id_0> words", True, True)
    (text,) = tinyplm.generate(model, source, max_new_tokens=5, temperature=0)
    (best,) = tinyplm.beam_search(model, source, max_new_tokens=5, beams=2)
    for options, written in (
        (("--temperature", 0), f"{text.text}\n\n"),
        (("--beams", 2), f"{best.text}\n\n"),
        (("--samples", 2, "--temperature", 0), f"{text.text}\n\na <extra_id_0> words\n{text.text}\n\n"),
    ):
        printed = generate(tmp_path, "--prompt", "a <extra_id_0> words", "--tokens", 5, *options).out
        assert printed == f"a <extra_id_0> words\n{written}"


def test_the_default_fits_an_encoder_decoders_positions(generate, tmp_path):
    tokenizer = Tokenizer.train(["a few words"], 262, ("<pad>", "</s>", "<unk>"), kind="Unigram")
    sizes = {"max_position_embeddings": 16, "vocab_size": tokenizer.vocab_size}
    tokens = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    model = tinyplm.create("transformer", **transformer.sides(8, 1, 2, 8), **sizes, **tokens)
    model.tokenizer = tokenizer
    tinyplm.save(model, tmp_path)
    generate(tmp_path, "--prompt", "a few", "--temperature", 0)
    assert "max_new_tokens: expected at most 16" in generate.refused(tmp_path, "--prompt", "a few", "--tokens", 17)


def test_an_encoder_generates_nothing(generate, tmp_path):
    sizes = {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 300}
    tinyplm.save(tinyplm.create("bert", **sizes), tmp_path)
    message = generate.refused(tmp_path, "--prompt", "a few")
    assert message.startswith("tinyplm: model: expected a decoder that generates text, got <bert masked_lm model")


def test_it_says_in_one_line_that_it_cannot_read_a_tokenizer(generate, tmp_path, recwarn):
    saved(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text().replace('"normalizer": null', '"normalizer": {"type": "NFX"}'))
    message = generate.refused(tmp_path, "--prompt", "a")
    assert message.startswith("tinyplm: tokenizer: expected a model with one") and "got 'NFX'" in message
    assert "\n" not in message and not recwarn.list


def test_it_computes_in_float32_unless_told(generate, monkeypatch, tmp_path):
    seen = []
    saved(tmp_path)

    def load(*_, dtype, load=tinyplm.load, **options):
        seen.append(dtype)
        return load(*_, dtype=dtype, **options)

    monkeypatch.setattr(hub, "load", load)
    for options in ((), ("--dtype", "float64")):
        generate(tmp_path, "--prompt", "a", "--tokens", 2, *options)
    assert seen == ["float32", "float64"]
    expected = "--dtype: expected one of float32, float64, float16, got 'int8'"
    assert expected in generate.refused(tmp_path, "--prompt", "a", "--dtype", "int8")
