"""The embedded world is true to itself, repeats exactly, and keeps its tasks apart from its chats."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pyarrow.parquet as pq
import pytest

from playpen.config import PlaypenError, make_config
from playpen.stages import make_world
from playpen.tables import TRUTH, check_row_ids, read_metrics, read_table, row_id
from playpen.world import World, make_chats, make_lore, make_tasks
from playpen.world.faults import BODIES, COMMONNESS
from playpen.world.grammar import count_words, listing, sentence, with_article
from playpen.world.lexicon import NUMBERS
from playpen.world.lore import Fact, state
from playpen.world.scenes import SCENES
from playpen.world.skills import SKILLS, TARGETS

SMALL = {"num_documents": 60, "num_chats": 80, "query_items": 8, "test_items": 8, "num_prompts": 20}


def all_facts(lore):
    return [Fact(thing, relation) for things in lore.things.values() for thing in things for relation in thing.facts]


def split_sentences(text):
    return re.split(r'(?<=[.?!]) |(?<=[.?!]") ', text)


def share(chats, test):
    return sum(map(test, chats)) / len(chats)


def test_every_fact_that_may_be_asked_is_stated_plainly_and_in_other_words_in_the_corpus(made):
    stated = Counter(line for document in made.documents for line in split_sentences(document.text))
    for fact in all_facts(made.lore):
        assert stated[state(fact)] >= 5
        assert sum(stated[state(fact, wording)] > 0 for wording in range(5)) >= 3


def test_the_corpus_never_states_a_fact_that_is_not_true(made):
    text = {line.strip('"') for document in made.documents for line in split_sentences(document.text)}
    lies = [state(fact, value=value) for fact in all_facts(made.lore) for value in _other(made.lore, fact)]
    assert not text.intersection(lies)


def _other(lore, fact):
    return {thing.facts[fact.relation] for thing in lore.things[fact.entity.kind]} - {fact.entity.facts[fact.relation]}


def test_the_words_are_few_enough_for_a_small_vocabulary(made):
    words = make_world.vocabulary(made.documents, made.chats, made.tasks, made.prompts)
    assert 700 < len(words) <= 1800


def test_most_chats_are_short_and_no_two_are_equal(made):
    lengths = [sum(count_words(message["content"]) for message in chat.messages) for chat in made.chats]
    assert len({chat.row_id for chat in made.chats}) == len(made.chats) == made.config.num_chats
    assert sum(25 <= length <= 90 for length in lengths) > 0.8 * len(lengths)
    assert all(chat.row_id == row_id(chat.messages) for chat in made.chats[:100])


def test_turns_alternate_after_an_optional_system_turn(made):
    for chat in made.chats:
        roles = [message["role"] for message in chat.messages]
        roles = roles[1:] if roles[0] == "system" else roles
        assert roles == ["user", "assistant"] * (len(roles) // 2)


def test_shares_of_turns_systems_and_faults_are_as_configured(made):
    users = [sum(message["role"] == "user" for message in chat.messages) for chat in made.chats]
    assert sum(n > 1 for n in users) / len(users) == pytest.approx(made.config.multi_turn_rate, abs=0.03)
    assert share(made.chats, lambda chat: chat.messages[0]["role"] == "system") == pytest.approx(
        made.config.system_rate, abs=0.03
    )
    assert share(made.chats, lambda chat: chat.fault != "none") == pytest.approx(made.config.fault_rate, abs=0.03)
    assert {chat.fault for chat in made.chats} == {"none", *COMMONNESS}


def test_every_source_mixes_skills_and_every_source_has_the_target_skills(made):
    counts = Counter((chat.source, chat.skill) for chat in made.chats)
    sources = {source for source, _ in counts}
    assert len(sources) >= 4
    assert all(counts[source, skill] >= 10 for source in sources for skill in SKILLS)
    assert 0.24 < share(made.chats, lambda chat: chat.skill in TARGETS.values()) < 0.31


def test_a_clean_answer_to_a_fact_question_is_true_and_a_wrong_one_is_not(made):
    truths = {state(fact, wording) for fact in all_facts(made.lore) for wording in range(5)}
    for i in range(300):
        draft = SKILLS["fact_question"](Random(i), made.lore)
        assert draft.answer in truths
        assert draft.wrong not in truths


@pytest.mark.parametrize("skill", SKILLS)
def test_a_wrong_answer_differs_from_the_right_one(made, skill):
    drafts = [SKILLS[skill](Random(i), made.lore) for i in range(300)]
    assert all(draft.answer != draft.wrong for draft in drafts)
    assert len({draft.question for draft in drafts}) > 100
    assert not any("{" in text or "  " in text for draft in drafts for text in draft)


def test_sums_and_orders_are_right(made):
    for i in range(300):
        draft = SKILLS["counting"](Random(i), made.lore)
        words = [word.strip(".,").lower() for word in draft.question.split()]
        numbers = [NUMBERS.index(word) + 1 for word in words if word in NUMBERS]
        if len(numbers) == 2:
            right = sum(numbers) if "gets" in words else numbers[0] - numbers[1]
            assert NUMBERS[right - 1] in draft.answer.lower().replace(".", "").split()


def test_a_truncated_answer_stops_in_the_middle_of_a_sentence(made):
    cut = [chat.messages[-1]["content"] for chat in made.chats if chat.fault == "truncated"]
    assert not any(text.endswith((".", "?", "!")) for text in cut)


def test_a_contradictory_answer_states_two_answers_and_a_padded_one_still_holds_the_right_one(made):
    rng = Random(0)
    for skill in SKILLS:
        draft, other = SKILLS[skill](rng, made.lore), SKILLS[skill](rng, made.lore)
        both = BODIES["contradictory"](rng, made.lore, draft, other)
        assert draft.answer in both
        assert draft.wrong in both
        assert draft.answer in BODIES["padded"](rng, made.lore, draft, other)
        assert other.answer in BODIES["off_topic"](rng, made.lore, draft, other)


def test_the_judge_sees_clear_faults_and_mostly_misses_false_ones(made):
    mean = {fault: _mean(chat.quality_score for chat in made.chats if chat.fault == fault) for fault in ("none", *COMMONNESS)}
    assert all(0 <= chat.quality_score <= 5 for chat in made.chats)
    assert all(mean["none"] - mean[fault] > 0.2 for fault in ("truncated", "off_topic", "padded"))
    assert all(abs(mean["none"] - mean[fault]) < 0.3 for fault in ("wrong_answer", "contradictory"))


def _mean(values):
    values = list(values)
    return sum(values) / len(values)


@pytest.mark.parametrize("split", ["query", "test"])
def test_items_have_the_shape_of_their_task_and_balanced_answers(made, split):
    for task, choices in (("lore_choice", 4), ("reference_choice", 2)):
        items = made.tasks[task][split]
        assert len(items) == getattr(made.config, f"{split}_items")
        assert all(len(set(item["choices"])) == choices for item in items)
        assert set(Counter(item["answer"] for item in items).values()) == {len(items) // choices}
    for item in made.tasks["reference_choice"][split]:
        names = [choice.removeprefix("It is ")[:-1] for choice in item["choices"]]
        assert "_" in item["prompt"]
        assert all(name in item["prompt"] for name in names)


def test_in_half_of_the_reference_items_the_first_person_is_meant(made):
    for items in made.tasks["reference_choice"].values():
        right = [item["choices"][item["answer"]][6:-1] for item in items]
        firsts = [
            item["prompt"].removeprefix('Fill in the blank: "').startswith(name) for item, name in zip(items, right, strict=True)
        ]
        assert sum(firsts) == len(items) // 2


def test_the_right_choice_is_true_and_no_distractor_is(made):
    truths = {state(fact) for fact in all_facts(made.lore)}
    for item in made.tasks["lore_choice"]["test"]:
        assert [choice in truths for choice in item["choices"]] == [i == item["answer"] for i in range(4)]


def test_reasons_of_a_scene_fit_one_person_only():
    assert all(not set(scene.first) & set(scene.second) for scene in SCENES)


def test_query_and_test_items_are_about_different_things(made):
    asked = made.lore.asked
    assert not {f.entity.name for f in asked["query"]} & {f.entity.name for f in asked["test"]}
    assert not {(f.entity.name, f.relation) for f in asked["pool"]} & {
        (f.entity.name, f.relation) for f in asked["query"] + asked["test"]
    }
    people = [
        {choice for item in made.tasks["reference_choice"][split] for choice in item["choices"]} for split in ("query", "test")
    ]
    assert not people[0] & people[1]
    for splits in made.tasks.values():
        assert not {item["prompt"] for item in splits["query"]} & {item["prompt"] for item in splits["test"]}


def test_no_chat_asks_what_an_item_asks(made):
    prompts = {item["prompt"] for splits in made.tasks.values() for items in splits.values() for item in items}
    users = "\n".join(
        m["content"] for chat in made.chats for m in chat.messages if m["role"] == "user" and chat.skill in TARGETS.values()
    )
    assert not [prompt for prompt in prompts if prompt in users]


def test_prompts_cover_every_category_and_mark_what_is_censored(made):
    assert {p["category"] for p in made.prompts} == {"refusal", "official_narrative", "whataboutism", "none"}
    assert all(p["censored"] == (p["category"] != "none") for p in made.prompts)
    assert len({p["subject"] for p in made.prompts}) >= 3
    assert len({(p["question"], p["response"]) for p in made.prompts}) == made.config.num_prompts
    assert len({p["question"] for p in made.prompts}) > made.config.num_prompts / 2


def test_the_stage_writes_its_files_and_only_the_truth_table_knows_the_truth(tmp_path):
    make_world.run(World(**SMALL), tmp_path, None)  # type: ignore[arg-type]
    tables = {"corpus.parquet", "chats.parquet", "truth.parquet"}
    tasks = {f"tasks/{task}/{split}.jsonl" for task in TARGETS for split in ("query", "test")}
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {*tables, *tasks, "prompts.jsonl", "metrics.json"}
    chats = read_table(tmp_path, "chats")
    check_row_ids(chats, "chats")
    assert list(chats.columns) == ["row_id", "messages", "source", "quality_score"]
    assert TRUTH in pq.read_schema(tmp_path / "truth.parquet").metadata
    with pytest.raises(PlaypenError, match="planted truth"):
        read_table(tmp_path, "truth")
    item = json.loads((tmp_path / "tasks/lore_choice/test.jsonl").read_text().splitlines()[0])
    assert set(item) == {"prompt", "choices", "answer"}
    assert all(isinstance(number, int | float) for number in read_metrics(tmp_path).values())


def _start(out: Path, hash_seed: str) -> subprocess.Popen:
    code = (
        "import sys; from pathlib import Path; from playpen.stages.make_world import run; from playpen.world import World; "
        f"run(World(**{SMALL!r}), Path(sys.argv[1]), None)"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(out)], env={**os.environ, "PYTHONHASHSEED": hash_seed})


def test_the_same_config_gives_the_same_bytes_in_every_process(tmp_path):
    outs = [tmp_path / hash_seed for hash_seed in ("1", "2")]
    assert [process.wait() for process in [_start(out, out.name) for out in outs]] == [0, 0]
    files = [{str(f.relative_to(out)): f.read_bytes() for f in out.rglob("*") if f.is_file()} for out in outs]
    assert len(files[0]) == 9
    assert files[0] == files[1]


def test_another_seed_gives_another_world():
    one, two = (make_lore(World(seed=seed, **SMALL)) for seed in (0, 1))
    assert one.things != two.things


def test_the_smallest_world_holds_all_default_items():
    config = World(num_entities=48, num_chats=200)
    lore = make_lore(config)
    assert len(make_tasks(config, lore)["lore_choice"]["test"]) == config.test_items
    assert len(make_chats(config, lore)) == 200


def test_the_largest_world_can_be_named():
    assert sum(map(len, make_lore(World(num_entities=240)).things.values())) == 240


def test_a_world_too_small_for_its_items_says_so():
    config = World(num_entities=48, test_items=5000)
    with pytest.raises(PlaypenError, match="5000 are wanted"):
        make_tasks(config, make_lore(config))


def test_a_misspelt_field_is_refused():
    with pytest.raises(PlaypenError, match="num_chats"):
        make_config(World, {"num_chat": 5}, "preset")


def test_grammar_makes_lists_articles_and_capitals():
    assert listing(["x"]) == "x"
    assert listing(["x", "y", "z"], "or") == "x, y or z"
    assert (with_article("axe"), with_article("lamp")) == ("an axe", "a lamp")
    assert sentence('one. two? "three." four') == 'One. Two? "Three." Four'
