"""A GPT-2 folder that transformers wrote, tuned by `tinyplm sft`: both generate the same answers, and stop."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

import tinyplm  # noqa: E402
from tests.cli.own import INSTRUCTIONS, lines  # noqa: E402
from tinyplm.tokenizers.chat import TEMPLATES  # noqa: E402
from tinyplm.tuning import prompt_ids  # noqa: E402


def written(folder):
    """A GPT-2 with its tokenizer, as transformers saves them."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet,
                                             show_progress=False)  # fmt: skip
    made.train_from_iterator([str(INSTRUCTIONS)], trainer)
    end = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=made, **end)
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=len(fast), n_embd=32, n_layer=1, n_head=2, n_positions=64, bos_token_id=0,
                                     eos_token_id=0)  # fmt: skip
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def test_a_tuned_folder_answers_and_stops_alike_in_both(run, tmp_path):
    data = lines(tmp_path / "own.jsonl", INSTRUCTIONS)
    options = ("--steps", "120", "--lr", "0.01", "--batch", "8", "--samples", "0", "--out", str(tmp_path / "out"))
    outcome = run("sft", "--model", str(written(tmp_path / "gpt2")), "--data", str(data), *options)
    assert outcome.code == 0, outcome.err
    ours = tinyplm.load(tmp_path / "out")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out/final").eval()
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path / "out/final")
    learned = 0
    for record in INSTRUCTIONS:
        ids = prompt_ids(ours.tokenizer, TEMPLATES["chatml"], record["instruction"])
        asked = [{"role": "user", "content": record["instruction"]}]
        assert reader.apply_chat_template(asked, add_generation_prompt=True, return_dict=False) == ids
        (answer,) = tinyplm.generate(ours, ids, max_new_tokens=20, temperature=0)
        found = theirs.generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False, pad_token_id=0)[0, len(ids) :].tolist()
        assert reader.decode(found, skip_special_tokens=True) == answer.text
        assert len(found) < 20 and found[-1] == reader.convert_tokens_to_ids("<|im_end|>"), "it stops"
        learned += answer.text == record["output"]
    assert learned >= 7  # of 8, one of which is held out
