"""tinyplm judge: blind sheets, what comes back from the judges, and the verdict."""

from __future__ import annotations

import csv
import json
import re

import pytest

from tests.support.scripts import assert_one_line
from tinyplm.evaluation.judgement import CRITERIA, Rating, judge_results, make_sheet, read_key, read_ratings

PROMPTS = [f"Question {n}?" for n in range(9)]
ANSWERS = {name: {p: f"{name[0]} says </script> {n}" for n, p in enumerate(PROMPTS)} for name in ("ada", "ben", "cyd")}
ANSWERS["ben"][PROMPTS[4]] = ANSWERS["ada"][PROMPTS[4]]  # nobody has to compare these


@pytest.fixture
def sheet(run, tmp_path):
    """A folder with files of answers and a sheet of them."""
    for name, answers in ANSWERS.items():
        lines = [json.dumps({"prompt": p, "answer": a}) for p, a in answers.items()]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    files = [tmp_path / f"{name}.jsonl" for name in ANSWERS]
    done = run("judge", "--answers", *files, "--out", tmp_path / "sheet", "--seed", 3)
    assert done.code == 0 and "26 comparisons; equal answers, which count as draws: 1" in done.out, done
    return tmp_path / "sheet"


def filled(path, judge, choose, sheet):
    """A judge's table; choose(left system, right system, criterion) is the choice."""
    systems = {item.number: item[4:] for item in read_key(sheet).items}
    with open(sheet / "sheet.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for criterion in CRITERIA:
            row[criterion] = choose(*systems[int(row["item"])], criterion)
    with open(path, "w", encoding="utf-8", newline="") as file:
        lines = csv.DictWriter(file, rows[0])
        lines.writeheader()
        lines.writerows([{**row, "judge": judge} for row in rows])
    return path


def best(left, right, criterion):
    """ada before ben before cyd; of facts nothing is known."""
    return "same" if criterion == "facts" else "left" if left < right else "right"


def test_a_sheet_is_blind_and_even(sheet):
    page, table = (sheet / "page.html").read_text(), (sheet / "sheet.csv").read_text(encoding="utf-8-sig")
    shown = re.search(r"const data = (.*);\n", page)[1]
    for text in (shown, table):
        assert not re.search(r"\b(ada|ben|cyd)\b", text)
    assert "</script>" not in shown and page.count("</script>") == 1
    items, key = json.loads(shown)["items"], read_key(sheet)
    assert [item["item"] for item in items] == [item.number for item in key.items] == list(range(1, 27))
    for item, secret in zip(items, key.items):
        assert item["prompt"] == secret.prompt
        assert (item["left"], item["right"]) == tuple(ANSWERS[name][secret.prompt] for name in secret[4:])
    assert key.equal == [(PROMPTS[4], "ada", "ben")]
    for pair in (("ada", "ben"), ("ada", "cyd"), ("ben", "cyd")):
        sides = [item[4:] for item in key.items if sorted(item[4:]) == list(pair)]
        assert abs(sides.count(pair) - sides.count(pair[::-1])) <= 2  # 9 prompts, one of them equal
    assert [item.prompt for item in key.items] != sorted(item.prompt for item in key.items)
    pair = {name: {f"{n}": name if n % 3 else "" for n in range(40)} for name in "ab"}  # a third are equal
    for key in range(5):
        sides = [item.left_system for item in make_sheet(pair, key=key).items]
        assert len(sides) == 26 and sides.count("a") == 13  # of those that are shown, half
    assert make_sheet(ANSWERS, key=3) == make_sheet(ANSWERS, key=3) != make_sheet(ANSWERS, key=4)


def test_the_verdict(run, sheet, tmp_path):
    ratings = [filled(tmp_path / f"{name}.csv", judge, best, sheet) for name, judge in (("a", "Eva"), ("Leo", ""))]
    done = run("judge", "--sheet", sheet, "--ratings", *ratings, "--json", tmp_path / "new" / "verdict.json")
    assert done.code == 0 and "judges     Eva, Leo: 208 choices" in done.out, done
    found = json.loads((tmp_path / "new" / "verdict.json").read_text())
    verdicts = {(v["criterion"], v["system"], v["other"]): v for v in found["verdicts"]}
    assert len(verdicts) == 5 * 3
    first = verdicts["fluency", "ada", "ben"]
    assert (first["wins"], first["draws"], first["losses"]) == (16, 2, 0)  # two judges, one equal pair
    assert first["rate"]["estimate"] == pytest.approx(17 / 18) and first["p"] == 2 * 2 / 2**9  # of 9 prompts one is 0
    facts = verdicts["facts", "ada", "cyd"]
    assert (facts["wins"], facts["draws"], facts["p"]) == (0, 18, 1.0)
    everything = verdicts["all", "ben", "cyd"]
    assert (everything["wins"], everything["draws"], everything["losses"]) == (54, 18, 0)
    order = sorted(found["strengths"]["fluency"], key=found["strengths"]["fluency"].get)
    assert order == ["cyd", "ben", "ada"]
    assert [a["kappa"] for a in found["agreement"]] == [1.0] * 4
    assert f"{17 / 18:.1%}" in done.out and "points of Elo" in done.out


def test_judges_who_disagree_and_prefer_a_side(run, sheet, tmp_path):
    paths = [filled(tmp_path / "Eva.csv", "Eva", best, sheet)]
    paths.append(filled(tmp_path / "Leo.csv", "Leo", lambda *_: "left", sheet))
    key = read_key(sheet)
    found = judge_results(key, read_ratings(key, paths))
    assert found.left.estimate > 0.6 and found.judges == ["Eva", "Leo"]
    for agreement in found.agreement:
        assert agreement.items == 26 and agreement.kappa <= 0 + 1e-12
        assert agreement.pairs[("Eva", "Leo")] == pytest.approx(0, abs=1e-12)  # Leo says the same of all


def test_prompts_are_told_apart_whatever_their_ends():
    sheet = make_sheet({name: {"a": name, "a\0": name} for name in ("ada", "ben")}, criteria=["fluency"])
    said = [Rating("Eva", i.number, "fluency", "left" if i.left_system == "ada" else "right") for i in sheet.items]
    assert judge_results(sheet, said).verdicts[0].p == 2 / 2**2  # two prompts, not one


def test_what_cannot_be(run, sheet, tmp_path):
    answers, out = [tmp_path / "ada.jsonl", tmp_path / "ben.jsonl"], tmp_path / "new"
    assert_one_line(run("judge"), "--answers: expected files of answers, or --sheet, got neither")
    assert_one_line(run("judge", "--answers", *answers), "--out: expected a folder for the sheet, got none")
    assert_one_line(run("judge", "--answers", *answers, "--out", sheet), "--out: expected a new or empty folder")
    assert_one_line(run("judge", "--answers", answers[0], "--out", out), "--answers: expected two or more files, got 1")
    same = tmp_path / "same.jsonl"
    same.write_bytes(answers[0].read_bytes())
    assert_one_line(run("judge", "--answers", answers[0], same, "--out", out), "--answers: expected answers that differ")
    said = "criteria: expected names other than the sheet's columns and 'all', got 'all'"
    assert_one_line(run("judge", "--answers", *answers, "--out", out, "--criteria", "all"), said)
    said = "--json: expected the name of a file"
    assert_one_line(run("judge", "--sheet", sheet, "--ratings", "x", "--json", tmp_path), said)
    assert_one_line(run("judge", "--sheet", sheet), "--ratings: expected tables of choices, got none")
    assert_one_line(run("judge", "--sheet", tmp_path, "--ratings", "x"), "key.json")
    (tmp_path / "less.jsonl").write_text(json.dumps({"prompt": PROMPTS[0], "answer": "a"}))
    (tmp_path / "twice.jsonl").write_text("\n".join([json.dumps({"prompt": "a", "answer": "a"})] * 2))
    (tmp_path / "bare.jsonl").write_text(json.dumps({"prompt": "a"}))
    less = "answers of less: expected one to each prompt, got none to"
    for name, said in (("less", less), ("twice", "twice.jsonl, line 2: prompt"), ("bare", "bare.jsonl, line 1: answer")):
        assert_one_line(run("judge", "--answers", answers[0], tmp_path / f"{name}.jsonl", "--out", out), said)
    assert not out.exists()
    key = json.loads((sheet / "key.json").read_text())
    (tmp_path / "key.json").write_text(json.dumps({**key, "criteria": [1]}))
    assert_one_line(run("judge", "--sheet", tmp_path, "--ratings", "x"), "key.json: expected the key of a sheet")
    header = f"judge,item,{','.join(CRITERIA)}\n"
    tables = {
        "item,fluency\n": "line 1: expected the columns item, fluency, coherence",
        f"{header}Eva,1,better,,,\n": "line 2: fluency: expected left, same, right, or nothing, got 'better'",
        f"{header}Eva,99,left,,,\n": "line 2: item: expected 1 to 26, got '99'",
        f"{header}Eva,1,left,,,\nEva,1,right,,,\n": "line 3: fluency: expected one choice, got a second of Eva for item 1",
        f"{header}Eva,1,,,,\n": "ratings: expected one or more choices, got none",
    }
    for text, said in tables.items():
        (tmp_path / "ratings.csv").write_text(text)
        assert_one_line(run("judge", "--sheet", sheet, "--ratings", tmp_path / "ratings.csv"), said)
