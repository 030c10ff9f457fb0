"""Which trial offers which example, and what every other trial says instead."""

from __future__ import annotations

import asyncio
import json

import pytest
from export_samples import WEATHER, assistant, call, tool_call, trial, user

from pytest_touchstone.errors import NetworkBlocked
from pytest_touchstone.export.example import LeftOut
from pytest_touchstone.export.leak import input_fingerprint
from pytest_touchstone.export.select import MAX_REASON, example_of, offers_of
from pytest_touchstone.trial import Score

SYSTEM = {"role": "system", "content": "You triage."}


def equals(checked):
    return checked.output == checked.expected


def mentions_days(checked):
    return Score(name="days", value=0.0, passed=False, reason="no days") if "days" not in checked.output else True


def asks(checked):
    pytest.fail("a judge must not be asked again")


asks.asks_model = True


def fix(made):
    return example_of(made, "failed", suite="support")


def replay(made):
    return example_of(made, "passed", suite="support")


def reason(result):
    assert isinstance(result, LeftOut)
    return result.reason


class TestWhoOffers:
    @pytest.mark.parametrize("outcome", ["passed", "failed", "error", "unscored", "not_run"])
    def test_never_a_holdout_case(self, outcome):
        made = trial("x", expected="y", split="holdout", calls=[call(user("a"), answer=assistant("x"))])
        assert example_of(made, outcome, suite="s") == LeftOut(reason="holdout")

    @pytest.mark.parametrize("outcome", ["passed", "failed"])
    def test_never_a_case_in_quarantine_whose_verdict_is_not_trusted(self, outcome):
        held = {"reason": "the vendor\nanswers at random", "until": "2099-12-31"}
        made = trial("x", expected="y", calls=[call(user("a"), answer=assistant("x"))], quarantine=held)
        left = example_of(made, outcome, suite="s")
        assert left == LeftOut(reason="quarantined as flaky: the vendor answers at random")
        assert left.category == "quarantined as flaky"

    @pytest.mark.parametrize(
        ("outcome", "why"),
        [
            ("error", "error: the app or a provider broke"),
            ("unscored", "unscored: a judge gave no usable verdict, so it is not known whether the case failed"),
            ("not_run", "not run"),
        ],
    )
    def test_only_trials_with_a_verdict(self, outcome, why):
        assert reason(example_of(trial("x", expected="y"), outcome, suite="s")) == why

    def test_the_example_says_where_it_comes_from(self):
        made = trial("x", expected="y", tags=("a", "b"), source="support.yaml:3", number=4, scorers=[equals])
        found = fix(made)
        assert (found.case_id, found.suite, found.source, found.tags, found.trial) == ("order", "support", "support.yaml:3", ("a", "b"), 4)
        assert (found.kind, found.target_source, found.checks) == ("fix", "expected", ("equals",))
        assert found.content_hash == made.case.content_hash
        assert found.input_fingerprint == input_fingerprint("Where is my order?")


class TestPrompt:
    def test_is_what_the_last_answered_call_sent(self):
        calls = [
            call(user("first"), answer=assistant("1")),
            call(SYSTEM, user("second"), answer=assistant("2"), tools=(WEATHER,)),
            call(user("refused"), answer=assistant("3"), status=400),
            call(user("broken"), answer=assistant("4"), error="connection lost"),
            call(user("lost")),
            call(answer={"embedding": [0.5]}),
        ]
        found = fix(trial("2", expected="right", calls=calls))
        assert found.prompt == (SYSTEM, user("second"))
        assert found.tools == (WEATHER,)
        assert found.completion == (assistant("right"),)

    def test_is_a_copy_that_later_changes_do_not_reach(self):
        message = user("a")
        made = trial("2", expected="right", calls=[call(message, answer=assistant("2"))])
        found = fix(made)
        message["content"] = "changed"
        assert found.prompt == (user("a"),)

    @pytest.mark.parametrize(
        ("case_input", "prompt"),
        [
            ("Hello", (user("Hello"),)),
            ([SYSTEM, user("Hello")], (SYSTEM, user("Hello"))),
            ({"q": "Où?", "n": 1}, (user('{"q": "Où?", "n": 1}'),)),
        ],
    )
    @pytest.mark.parametrize("calls", [(), (call(answer={"embedding": [0.5]}),)])
    def test_is_the_input_where_no_chat_call_was_seen(self, case_input, prompt, calls):
        found = fix(trial("x", input=case_input, expected="y", calls=calls))
        assert found.prompt == prompt
        assert found.tools == ()

    @pytest.mark.parametrize("finish", [fix, replay])
    def test_is_not_guessed_where_no_call_was_answered(self, finish):
        made = trial("x", expected="y", calls=[call(user("a"), status=500), call(user("a"), error="timeout")])
        assert reason(finish(made)) == "no answered call: the app called a model, but no call was answered"

    def test_a_call_without_a_status_counts(self):
        assert replay(trial("x", calls=[call(user("a"), answer=assistant("x"), status=None)])).prompt == (user("a"),)

    @pytest.mark.parametrize(
        ("messages", "why"),
        [
            ([user("a"), assistant("{")], "the prompt ends with an assistant message, so the completion would not be an answer"),
            (
                [{"role": "function", "content": "4"}],
                "prompt[0] has the role 'function'; use one of assistant, developer, system, tool, user",
            ),
            ([user("a\udc80")], "a text holds a lone surrogate (U+DC80), which UTF-8 cannot"),
            ([user("a", image=b"x")], "what was sent is not JSON: bytes is no JSON value"),
        ],
    )
    def test_what_cannot_be_exported_is_left_out(self, messages, why):
        made = trial("x", expected="y", calls=[call(*messages, answer=assistant("x"))])
        assert reason(fix(made)) == f"not exportable: {why}"


class TestReplay:
    def test_completes_with_the_answer_on_the_wire(self):
        answer = {"content": None, "tool_calls": [tool_call('{"city":  "Oslo", "n": 1.0}')]}
        found = replay(trial({"city": "Oslo"}, calls=[call(user("Weather?"), answer=answer, tools=(WEATHER,))]))
        assert found.completion == ({"role": "assistant", **answer},)
        assert found.completion[0]["tool_calls"][0]["function"]["arguments"] == '{"city":  "Oslo", "n": 1.0}'
        assert (found.kind, found.target_source, found.checks) == ("replay", "wire", ())

    @pytest.mark.parametrize(("output", "text"), [("On its way.", "On its way."), ({"team": "é"}, '{"team": "é"}'), (4, "4")])
    def test_completes_with_the_output_where_no_call_was_seen(self, output, text):
        found = replay(trial(output))
        assert found.completion == (assistant(text),)
        assert (found.kind, found.target_source) == ("replay", "output")

    @pytest.mark.parametrize("output", [None, object(), float("nan")])
    def test_has_nothing_to_learn_from_an_output_without_text(self, output):
        why = f"no text to learn: no model call was seen, and the output is {type(output).__name__}"
        assert reason(replay(trial(output))) == why

    def test_an_empty_answer_is_left_out(self):
        assert reason(replay(trial("x", calls=[call(user("a"), answer=assistant(None))]))) == (
            "not exportable: completion[0] has neither content nor tool_calls"
        )
        assert reason(replay(trial("  "))) == "not exportable: the completion is empty"


class TestTarget:
    def test_is_expected_before_reference(self):
        found = fix(trial("x", expected="right", reference="also right"))
        assert (found.completion, found.target_source) == ((assistant("right"),), "expected")

    def test_is_the_reference_where_nothing_is_expected(self):
        found = fix(trial("x", reference="right"))
        assert (found.completion, found.target_source) == ((assistant("right"),), "reference")

    def test_is_the_reference_where_expected_does_not_pass(self):
        found = fix(trial("x", expected="30", reference="within 30 days", scorers=[mentions_days]))
        assert (found.completion, found.target_source, found.checks) == ((assistant("within 30 days"),), "reference", ("mentions_days",))

    def test_must_exist(self):
        assert reason(fix(trial("x", rubric="Be kind."))) == "no verified target: the case has neither expected nor reference"
        assert reason(fix(trial("x", expected=" "))) == "no verified target: expected is empty"

    def test_must_pass_every_deterministic_scorer(self):
        made = trial("x", expected="soon", reference="later", scorers=[asks, mentions_days, mentions_days])
        assert reason(fix(made)) == (
            "no verified target: expected does not pass mentions_days: no days; reference does not pass mentions_days: no days"
        )

    def test_a_scorer_runs_once_on_a_fresh_trial(self):
        seen = []

        def looks(checked):
            seen.append((checked.output, checked.expected, list(checked.scores), list(checked.calls), checked.number))
            return True

        made = trial("x", expected="right", scorers=[looks, looks], calls=[call(user("a"), answer=assistant("x"))], number=3)
        assert fix(made).checks == ("looks",)
        assert seen == [("right", "right", [], [], 3)]

    @pytest.mark.parametrize(
        ("result", "why"),
        [
            (False, "no reason given"),
            (0.4, "0.4 < 0.5"),
            ("yes", "it raised ScorerError: scorer 'scored' returned str; return a bool, a number from 0 to 1, or a Score"),
            (Score.unscored("scored", "undecided"), "undecided"),
        ],
    )
    def test_whatever_is_no_pass_is_no_target(self, result, why):
        def scored(checked):
            return result

        assert reason(fix(trial("x", expected="y", scorers=[scored]))) == f"no verified target: expected does not pass scored: {why}"

    @pytest.mark.parametrize("error", [ValueError("bad"), NetworkBlocked("bad"), pytest.fail.Exception("bad")])
    def test_a_scorer_that_raises_is_no_pass(self, error):
        def raises(checked):
            raise error

        why = f"no verified target: expected does not pass raises: it raised {type(error).__name__}: bad"
        assert reason(fix(trial("x", expected="y", scorers=[raises]))) == why

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
    def test_the_user_can_still_interrupt(self, error):
        def raises(checked):
            raise error

        with pytest.raises(error):
            fix(trial("x", expected="y", scorers=[raises]))

    def test_async_scorers_are_not_run(self):
        async def waits(checked):
            raise AssertionError

        loop = asyncio.new_event_loop()
        future = loop.create_future()

        class Bare:
            def __await__(self):
                yield

        made = trial(
            "x", expected="y", scorers=[waits, lambda checked: waits(checked=checked), lambda checked: future, lambda checked: Bare()]
        )
        assert fix(made).checks == ()
        assert future.cancelled()
        loop.close()

    def test_a_scorer_cannot_change_what_the_next_one_sees(self):
        def spoils(checked):
            checked.output.clear()
            return True

        found = fix(trial({"team": "a"}, expected={"team": "b"}, scorers=[spoils, equals]))
        assert found.checks == ("spoils", "equals")
        assert found.completion == (assistant('{"team":"b"}'),)

    @pytest.mark.parametrize(
        ("output", "expected", "seen"),
        [
            ({"team": "a"}, {"team": "b"}, {"team": "b"}),
            ({"team": "a"}, '{"team": "b"}', {"team": "b"}),
            ([1], [2], [2]),
            (41, 42, 42),
            (41.5, "42", 42),
            ('{"team": "a"}', {"team": "b"}, '{"team":"b"}'),
            (None, {"team": "b"}, '{"team":"b"}'),
        ],
    )
    def test_reaches_the_scorers_in_the_shape_of_the_output(self, output, expected, seen):
        got = []
        fix(trial(output, expected=expected, scorers=[lambda checked: got.append(checked.output) or True]))
        assert got == [seen]

    @pytest.mark.parametrize(
        ("output", "why"),
        [
            (object(), "the app's output is of type object, which a target cannot be turned into"),
            ({"team": "a"}, "the app's output is of type dict, and the target is not JSON"),
        ],
    )
    def test_that_has_no_such_shape_is_not_verified(self, output, why):
        assert reason(fix(trial(output, expected="b", scorers=[equals]))) == f"no verified target: expected cannot be checked: {why}"
        assert fix(trial(output, expected="b", scorers=[asks])).completion == (assistant("b"),)

    @pytest.mark.parametrize(
        ("output", "expected", "answer"),
        [
            ("same ", "same", "Same."),
            ("Same.", "same", " same"),
            ({"b": 1, "a": 2}, {"a": 2, "b": 1}, '{"b": 1, "a": 2}'),
        ],
    )
    def test_is_never_the_output_that_failed(self, output, expected, answer):
        made = trial(output, expected=expected, calls=[call(user("a"), answer=assistant(answer))])
        assert reason(fix(made)) == "no verified target: expected is the output that failed"

    def test_is_not_put_where_the_model_called_a_tool(self):
        made = trial("x", expected="y", calls=[call(user("a"), answer=assistant(None, tool_calls=[tool_call()]))])
        assert reason(fix(made)) == "tool calls: the last answer calls tools, and a text target would teach the model not to call them"

    @pytest.mark.parametrize(
        ("answer", "text"),
        [
            ('{"z": "é", "a": [1]}', '{"z": "ø", "a": [1, 2]}'),
            ('{"z":"é","a":[1]}', '{"z":"ø","a":[1,2]}'),
            (json.dumps({"z": 1, "a": 2}, indent=2), '{\n  "z": "ø",\n  "a": [\n    1,\n    2\n  ]\n}'),
            (json.dumps({"z": 1, "a": 2}, indent=4) + "\n", '{\n    "z": "ø",\n    "a": [\n        1,\n        2\n    ]\n}'),
            ('{"z" : 1}', '{"z":"ø","a":[1,2]}'),
            ("not JSON", '{"z":"ø","a":[1,2]}'),
            ("[" * 100_000, '{"z":"ø","a":[1,2]}'),
        ],
    )
    def test_json_is_laid_out_as_the_model_does_in_golden_order(self, answer, text):
        made = trial(answer, expected={"z": "ø", "a": [1, 2]}, calls=[call(user("a"), answer=assistant(answer))])
        assert fix(made).completion == (assistant(text),)

    def test_goes_where_the_output_stood_in_an_answer_of_one_field(self):
        answered = call(user("a"), answer=assistant('{"team": "Returns"}'))
        made = trial("returns", expected="sales", calls=[answered], scorers=[equals])
        found = fix(made)
        assert (found.completion, found.rejected) == ((assistant('{"team": "sales"}'),), (assistant('{"team": "Returns"}'),))
        assert found.checks == ("equals",)

    @pytest.mark.parametrize(
        ("answer", "output"),
        [
            ('{"team": "returns", "why": "It came broken."}', "returns"),
            ('{"team": "returns"}', "care"),
            ("It came broken, so: returns", "returns"),
            ('["returns"]', "returns"),
            ('{"allowed": true}', "A whole reply of another call."),
            ("returns", {"team": "returns"}),
            ("3.5", "35"),
            ("-1", "1"),
            ("returns", object()),
        ],
    )
    def test_is_not_known_where_the_output_is_not_what_the_model_answered(self, answer, output):
        made = trial(output, expected="sales", reference="sales", calls=[call(user("a"), answer=assistant(answer))])
        left = example_of(made, "failed", suite="s", correction="sales")
        assert (left.category, left.unanswered) == ("not the model's answer", None)
        assert left.reason == (
            "not the model's answer: the app's output is not what its model answered, so it is not known what the model should say; "
            "make that answer the output, and let a scorer look for the part that matters"
        )

    @pytest.mark.parametrize(
        ("answer", "output"),
        [
            ('"Returns."\n', "returns"),
            ('Here it is:\n```json\n{"team": "returns"}\n```', {"team": "returns"}),
            ("41", 41),
            ("...", "..."),
        ],
    )
    def test_may_follow_an_output_that_differs_from_the_answer_in_its_dress_only(self, answer, output):
        made = trial(output, expected="sales", calls=[call(user("a"), answer=assistant(answer))])
        assert fix(made).completion == (assistant("sales"),)

    @pytest.mark.parametrize("as_text", [True, False])
    def test_that_is_a_part_of_the_answer_says_nothing_of_the_rest(self, as_text):
        def same_team(checked):
            return (json.loads(checked.output) if as_text else checked.output)["team"] == "sales"

        output = '{"team": "returns", "why": "It came broken."}'
        partly = {"expected": {"team": "sales"}, "calls": [call(user("a"), answer=assistant(output))], "scorers": [same_team]}
        output = output if as_text else json.loads(output)
        why = "no verified target: expected lacks what else the model answers, and the checks would not notice: why"
        assert reason(fix(trial(output, **partly))) == why
        whole = '{"team": "sales", "why": "They ask for a price."}'
        found = fix(trial(output, reference=whole, **partly))
        assert (found.target_source, found.completion) == ("reference", (assistant(whole),))

    def test_may_lack_a_field_that_the_checks_would_not_have(self):
        answered = call(user("a"), answer=assistant('{"team": "returns", "why": "It came broken."}'))
        output = {"team": "returns", "why": "It came broken."}
        made = trial(output, expected={"team": "sales"}, calls=[answered], scorers=[equals])
        assert fix(made).completion == (assistant('{"team": "sales"}'),)

    @pytest.mark.parametrize(("expected", "text"), [(42, "42"), (True, "true"), ([], "[]")])
    def test_other_values_are_json_too(self, expected, text):
        assert fix(trial("x", expected=expected)).completion == (assistant(text),)


def test_a_reason_is_one_line_of_bounded_length():
    def long(checked):
        return Score(name="long", value=0.0, passed=False, reason="a\nb " * 500)

    why = reason(fix(trial("x", expected="y", scorers=[long])))
    assert len(why) == MAX_REASON
    assert why.endswith("...")
    assert "\n" not in why


class TestRejected:
    def test_is_what_the_model_answered(self):
        answered = call(SYSTEM, user("a"), answer=assistant([{"type": "text", "text": "No idea."}], refusal=None))
        made = fix(trial("no idea", expected="Within 30 days.", calls=[answered]))
        assert made.rejected == (assistant("No idea."),)
        assert made.call == 1

    def test_is_the_output_where_no_call_was_seen(self):
        made = fix(trial("No idea.", expected="Within 30 days."))
        assert (made.rejected, made.call) == ((assistant("No idea."),), None)

    def test_of_an_object_is_laid_out_as_the_target_is(self):
        made = fix(trial({"a": [1, "é"]}, expected={"a": [2, "é"]}))
        assert (made.completion, made.rejected) == ((assistant('{"a":[2,"é"]}'),), (assistant('{"a":[1,"é"]}'),))

    @pytest.mark.parametrize("output", [None, "", "  ", {1, 2}])
    def test_is_none_where_no_text_failed(self, output):
        made = trial("x", expected="y")
        made.output = output
        assert fix(made).rejected == ()

    def test_is_none_where_nothing_failed(self):
        assert replay(trial("x", expected="x")).rejected == ()


class TestCalls:
    ASKED = (
        call(user("Draft"), answer=assistant("a draft")),
        call(user("Draft"), status=500),
        call(user("Call"), answer=assistant(None, tool_calls=[tool_call()]), tools=(WEATHER,)),
        call(user("Answer"), answer=assistant("x")),
    )

    def offers(self, outcome, which, **case):
        made = trial("x", calls=self.ASKED, **({"expected": "y"} | case))
        return [
            offer if isinstance(offer, LeftOut) else (offer.call, offer.kind, offer.prompt[0]["content"])
            for offer in offers_of(made, outcome, suite="s", call=which)
        ]

    def test_of_a_trial_that_passed_are_replayed_as_chosen(self):
        assert self.offers("passed", "last") == [(3, "replay", "Answer")]
        assert self.offers("passed", "first") == [(1, "replay", "Draft")]
        assert self.offers("passed", "all") == [(1, "replay", "Draft"), (2, "replay", "Call"), (3, "replay", "Answer")]

    def test_of_a_trial_that_failed_have_a_target_at_the_end_only(self):
        earlier = LeftOut(reason="earlier call: the trial failed, and only its last answer has a target")
        assert self.offers("failed", "last") == [(3, "fix", "Answer")]
        assert self.offers("failed", "first") == [earlier]
        assert self.offers("failed", "all") == [earlier, earlier, (3, "fix", "Answer")]

    def test_a_single_call_is_the_first_and_the_last(self):
        made = trial("x", expected="y", calls=self.ASKED[-1:])
        assert len({offers_of(made, "failed", suite="s", call=which)[0].to_dict()["call"] for which in ("last", "first", "all")}) == 1

    @pytest.mark.parametrize("which", ["last", "first", "all"])
    def test_what_a_trial_cannot_offer_its_calls_cannot(self, which):
        held = {"reason": "flaky", "until": "2099-12-31"}
        assert self.offers("passed", which, split="holdout") == [LeftOut(reason="holdout")]
        assert self.offers("passed", which, quarantine=held) == [LeftOut(reason="quarantined as flaky: flaky")]
        assert self.offers("error", which) == [LeftOut(reason="error: the app or a provider broke")]
