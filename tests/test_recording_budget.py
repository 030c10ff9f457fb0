from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading

import anthropic  # noqa: F401 - imported before a pytest inside pytest imports, and forgets, it
import httpcore2  # noqa: F401 - as above
import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from providers import FakeProvider, Reply

from pytest_touchstone.errors import BudgetSpent
from pytest_touchstone.recording import recorder as recorder_module
from pytest_touchstone.recording.budget import (
    RECORD_BYTES,
    STALE_S,
    Budget,
    FileLedger,
    MemoryLedger,
    Spent,
    _decode,
    _encode,
    new_ledger_file,
)
from pytest_touchstone.recording.pace import Paces
from pytest_touchstone.recording.recorder import Owner, Recorder

BROKEN = "it does not hold a budget"


@pytest.fixture(params=["memory", "file"])
def ledger(request, tmp_path):
    if request.param == "memory":
        yield MemoryLedger()
        return
    ledger = FileLedger(new_ledger_file(tmp_path))
    yield ledger
    ledger.close()


def settle(budget, cost, *, model="gpt-4o", reason="no price is known"):
    budget.settle(cost, model=model, host="api.example", reason=reason)


class TestCalls:
    def test_so_many_may_begin_and_no_more(self, ledger):
        budget = Budget(max_calls=2, ledger=ledger)
        assert budget.spent is None
        budget.begin()
        assert budget.spent is None
        budget.begin()
        assert budget.spent == "the budget of 2 calls is spent"
        for _ in range(2):
            with pytest.raises(BudgetSpent, match=r"^the budget of 2 calls is spent$"):
                budget.begin()

    def test_large_numbers_are_readable(self, ledger):
        ledger.change(lambda _: Spent(calls=12_000))
        assert Budget(max_calls=12_000, ledger=ledger).spent == "the budget of 12,000 calls is spent"

    def test_another_one_that_shares_it_sees_what_is_spent(self, tmp_path):
        path = new_ledger_file(tmp_path)
        one, other = (Budget(max_calls=1, ledger=FileLedger(path)) for _ in range(2))
        one.begin()
        with pytest.raises(BudgetSpent):
            other.begin()

    def test_it_is_exact_over_threads(self, ledger):
        budget = Budget(max_calls=25, ledger=ledger)
        begun = []

        def work():
            for _ in range(10):
                try:
                    budget.begin()
                except BudgetSpent:
                    return
                begun.append(1)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(begun) == 25

    def test_it_is_exact_over_processes(self, tmp_path):
        path = new_ledger_file(tmp_path)
        running = [subprocess.Popen([sys.executable, "-c", BEGIN_MANY, str(path)], stdout=subprocess.PIPE, text=True) for _ in range(2)]
        begun = [int(process.communicate(timeout=60)[0]) for process in running]
        assert sum(begun) == 30
        assert FileLedger(path).change(lambda spent: spent).calls == 30

    def test_what_calls_cost_does_not_matter(self, ledger):
        budget = Budget(max_calls=2, ledger=ledger)
        settle(budget, None)
        settle(budget, 1000.0)
        assert budget.spent is None

    def test_a_thread_that_saw_an_earlier_state_does_not_take_it_back(self):
        class Overtaken(MemoryLedger):
            """Another thread begins the last call between one's look and what one makes of it."""

            def change(self, step):
                seen = super().change(step)
                if not budget._final and seen == Spent():
                    budget.begin()
                return seen

        budget = Budget(max_calls=1, ledger=Overtaken())
        assert budget.spent is None
        assert budget._final == "the budget of 1 call is spent"


BEGIN_MANY = """
import pathlib, sys
from pytest_touchstone.errors import BudgetSpent
from pytest_touchstone.recording.budget import Budget, FileLedger

budget = Budget(max_calls=30, ledger=FileLedger(pathlib.Path(sys.argv[1])))
begun = 0
try:
    for _ in range(20):
        budget.begin()
        begun += 1
except BudgetSpent:
    pass
print(begun)
"""


class TestCost:
    def test_it_is_spent_when_the_known_cost_reaches_it(self, ledger):
        budget = Budget(max_cost_usd=1.0, ledger=ledger)
        budget.begin()
        settle(budget, 0.75)
        budget.begin()
        settle(budget, 0.0)
        assert budget.spent is None
        settle(budget, 0.25)
        assert budget.spent == "the budget of $1.00 is spent"
        with pytest.raises(BudgetSpent, match=r"the budget of \$1\.00 is spent"):
            budget.begin()

    def test_calls_on_their_way_are_settled_after_the_end(self, ledger):
        budget = Budget(max_cost_usd=1.0, ledger=ledger)
        settle(budget, 2.0)
        settle(budget, 0.5)
        assert ledger.change(lambda spent: spent).cost_usd == 2.5

    def test_a_call_without_a_price_spends_it_and_the_first_one_is_named(self, ledger):
        budget = Budget(max_cost_usd=1.0, ledger=ledger)
        settle(budget, None, model="own-model", reason="no price is known for own-model at api.example")
        settle(budget, None, model="other")
        assert budget.spent == (
            "the cost of a call to own-model at api.example is not known (no price is known for own-model at api.example), "
            "so --llm-max-cost cannot be held; use --llm-max-calls"
        )

    @given(model=st.text(), reason=st.text())
    def test_names_from_outside_are_kept_short_and_harmless(self, model, reason):
        budget = Budget(max_cost_usd=1.0)
        settle(budget, None, model=model, reason=reason)
        assert budget.spent.startswith("the cost of a call to ")
        assert budget.spent.isprintable() or "\n" in model + reason or "\t" in model + reason or not (model + reason).isprintable()
        assert "\x1b" not in budget.spent
        assert len(_encode(Spent(unpriced=budget.spent))) == RECORD_BYTES

    def test_a_model_without_a_name(self):
        budget = Budget(max_cost_usd=1.0)
        settle(budget, None, model="")
        assert "a call to a model without a name at api.example" in budget.spent

    def test_both_limits_hold(self, ledger):
        budget = Budget(max_calls=5, max_cost_usd=0.005, ledger=ledger)
        budget.begin()
        settle(budget, 0.005)
        assert budget.spent == "the budget of $0.005 is spent"

    def test_no_limit_is_never_spent(self, ledger):
        budget = Budget(ledger=ledger)
        budget.begin()
        settle(budget, None)
        assert budget.spent is None


class TestFile:
    @given(st.builds(Spent, calls=st.integers(0, 2**53), cost_usd=st.floats(0, 1e9), unpriced=st.text(max_size=100)))
    def test_what_is_written_is_read(self, spent):
        data = _encode(spent)
        assert len(data) == RECORD_BYTES
        assert _decode(data) == spent

    @pytest.mark.parametrize(
        "data", [b"", b"{}", b"x" * RECORD_BYTES, b"[]".ljust(RECORD_BYTES), b"{}".ljust(RECORD_BYTES), _encode(Spent()) + b"x"]
    )
    def test_a_file_that_is_not_ours_spends_the_budget(self, tmp_path, data):
        path = tmp_path / "budget-x.json"
        path.write_bytes(data)
        budget = Budget(max_calls=5, ledger=FileLedger(path))
        assert budget.spent.startswith("the budget cannot be counted: ")
        with pytest.raises(BudgetSpent, match="the budget cannot be counted: "):
            budget.begin()

    @pytest.mark.parametrize("fields", ['{"calls": null, "cost_usd": 1, "unpriced": ""}', '{"calls": 1, "cost_usd": "x", "unpriced": ""}'])
    def test_fields_of_the_wrong_kind(self, fields):
        with pytest.raises(ValueError, match=BROKEN):
            _decode(fields.encode().ljust(RECORD_BYTES))

    def test_a_file_that_is_gone_spends_the_budget(self, tmp_path):
        budget = Budget(max_calls=5, ledger=FileLedger(tmp_path / "gone.json"))
        assert budget.spent.startswith("the budget cannot be counted: [Errno 2] No such file or directory")

    def test_it_is_written_only_when_something_changed(self, tmp_path):
        path = new_ledger_file(tmp_path)
        os.utime(path, (1, 1))
        ledger = FileLedger(path)
        ledger.change(lambda spent: spent)
        ledger.close()
        ledger.close()
        assert path.stat().st_mtime == 1

    def test_files_of_killed_runs_are_removed_after_a_week(self, tmp_path):
        old, young, other = tmp_path / "budget-old.json", tmp_path / "budget-young.json", tmp_path / "other.json"
        for path, age in ((old, STALE_S + 1), (young, STALE_S - 1), (other, STALE_S + 1)):
            path.write_text("")
            os.utime(path, (1e9 - age, 1e9 - age))
        made = new_ledger_file(tmp_path, now=lambda: 1e9)
        assert sorted(tmp_path.iterdir()) == sorted([young, other, made])

    def test_its_folder_is_made(self, tmp_path):
        assert FileLedger(new_ledger_file(tmp_path / "a" / "b")).change(lambda spent: spent) == Spent()


class Work:
    """A recorder with a budget and paces, and what its owner is told."""

    def __init__(self, root, **kwargs):
        self.calls, self.refused = [], []
        self.paces = Paces(ceiling=2)
        self.module = root / "test_shop.py"
        self.recorder = Recorder(mode="off", journal_dir=root / "journals", rootdir=root, environ={}, paces=self.paces, **kwargs)

    def __enter__(self):
        self.recorder.start()
        owner = Owner(
            module=self.module, test="t", trial=1, on_call=self.calls.append, on_miss=self.calls.append, on_refused=self.refused.append
        )
        self.owned = self.recorder.own(owner)
        self.owned.__enter__()
        return self

    def __exit__(self, *_):
        self.owned.__exit__(None, None, None)
        self.recorder.stop()


@pytest.fixture
def provider():
    with FakeProvider() as server:
        yield server


def chat(provider):
    with openai.OpenAI(base_url=provider.openai_url, api_key="k", max_retries=0) as client:
        return client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])


async def achat(provider):
    async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k", max_retries=0) as client:
        return await client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])


def in_flight(work, provider):
    return work.paces.of(provider.url)._in_flight


class TestRecorder:
    def test_the_sdk_does_not_wrap_or_retry_the_refusal_and_the_owner_is_told(self, tmp_path, provider):
        with Work(tmp_path, budget=Budget(max_calls=1)) as work:
            chat(provider)
            with pytest.raises(BudgetSpent):
                chat(provider)
            with pytest.raises(BudgetSpent):
                asyncio.run(achat(provider))
            assert in_flight(work, provider) == 0
        assert len(provider.requests) == 1
        assert len(work.calls) == 1
        assert work.refused == ["the budget of 1 call is spent"] * 2

    def test_one_that_waited_for_its_turn_meanwhile_is_refused_too(self, tmp_path, provider, monkeypatch):
        budget = Budget(max_calls=1)
        with Work(tmp_path, budget=budget) as work:
            monkeypatch.setattr(type(budget), "spent", None)
            chat(provider)
            with pytest.raises(BudgetSpent):
                chat(provider)
            assert in_flight(work, provider) == 0
        assert (len(provider.requests), len(work.calls), work.refused) == (1, 1, ["the budget of 1 call is spent"])

    def test_an_async_call_that_is_cancelled_while_it_waits_is_no_call(self, tmp_path, provider):
        async def main(work):
            held = [work.paces.of(provider.url).take() for _ in range(2)]
            task = asyncio.create_task(achat(provider))
            while not work.paces.of(provider.url)._waiting:  # noqa: ASYNC110 - nobody says so
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            for slot in held:
                slot.failed()

        with Work(tmp_path, budget=Budget(max_calls=1)) as work:
            asyncio.run(main(work))
            assert chat(provider).choices[0].message.content == "ok"
            assert in_flight(work, provider) == 0
        assert (len(provider.requests), len(work.calls), work.refused) == (1, 1, [])

    def test_a_stream_gives_its_turn_back_before_it_is_read(self, tmp_path, provider):
        with Work(tmp_path) as work:
            with openai.OpenAI(base_url=provider.openai_url, api_key="k") as client:
                stream = client.responses.create(model="gpt-4o", input="hi", stream=True)
                assert in_flight(work, provider) == 0
                list(stream)
            assert asyncio.run(achat(provider)).choices[0].message.content == "ok"
            assert in_flight(work, provider) == 0

    def test_other_requests_to_this_machine_do_not_wait_and_do_not_count(self, tmp_path, provider):
        with Work(tmp_path, budget=Budget(max_calls=1, max_cost_usd=1.0)) as work:
            work.paces.of(provider.url)._width = 0
            with httpx2.Client() as client:
                assert client.get(f"{provider.openai_url}/models").status_code == 200
        assert work.recorder.budget.spent is None
        assert work.calls == []

    def test_what_an_answer_costs_is_added_up(self, tmp_path, provider, monkeypatch):
        monkeypatch.setattr(recorder_module, "price", lambda *_, **__: (0.4, ""))
        budget = Budget(max_cost_usd=1.0)
        with Work(tmp_path, budget=budget):
            for _ in range(2):
                chat(provider)
            assert budget.spent is None
            chat(provider)
            assert budget.spent == "the budget of $1.00 is spent"

    def test_a_call_that_never_left_costs_nothing(self, tmp_path, provider):
        provider.stop()
        budget = Budget(max_cost_usd=1.0)
        with Work(tmp_path, budget=budget) as work:
            with pytest.raises(openai.APIConnectionError):
                chat(provider)
            assert in_flight(work, provider) == 0
        assert budget.spent is None

    def test_what_a_lost_answer_costs_is_not_known(self, tmp_path, provider):
        provider.answer = Reply(drop_after=0)
        budget = Budget(max_cost_usd=1.0)
        with Work(tmp_path, budget=budget), pytest.raises(openai.APIConnectionError):
            chat(provider)
        assert budget.spent == (
            "the cost of a call to gpt-4o at 127.0.0.1 is not known (there is no answer), so --llm-max-cost cannot be held; use --llm-max-calls"
        )

    def test_a_request_that_names_no_model(self, tmp_path, provider):
        budget = Budget(max_cost_usd=1.0)
        with Work(tmp_path, budget=budget), httpx2.Client() as client:
            client.post(f"{provider.openai_url}/chat/completions", json={"messages": []})
        assert budget.spent.startswith("the cost of a call to a model without a name at 127.0.0.1 is not known")

    @pytest.mark.parametrize("status", [400, 429, 500])
    def test_refusals_of_the_provider_cost_nothing(self, tmp_path, provider, status):
        provider.answer = Reply(status=status)
        budget = Budget(max_cost_usd=1.0)
        with Work(tmp_path, budget=budget), pytest.raises(openai.APIStatusError):
            chat(provider)
        assert budget.spent is None
