from __future__ import annotations

import json
import sqlite3

import postgres
import pytest
from run_samples import COMMIT, SUITE, call, full_record, keep, record, run

from pytest_touchstone.cli import main
from pytest_touchstone.git import Checkout
from pytest_touchstone.runs import GateWord, RunStore

NOTHING = "touchstone: no run is stored yet; pytest --llm-eval stores one, unless llm_store is off (--store names another store)"


class Project:
    def __init__(self, root, capsys):
        self.root = root
        self.capsys = capsys
        (root / ".touchstone").mkdir()

    @property
    def store(self):
        return RunStore.open(".touchstone/runs.db", base=self.root)

    def add(self, *records, store=None, **changes):
        made = run(records, **changes)
        (store or self.store).add(made, records, redact=keep)
        return made

    def run(self, *arguments):
        """The exit status, what was printed, and what was complained about."""
        status = main([str(argument) for argument in arguments])
        printed = self.capsys.readouterr()
        return status, printed.out.splitlines(), printed.err.splitlines()

    def json(self, *arguments):
        status, out, err = self.run(*arguments, "--json")
        assert (status, err) == (0, [])
        return json.loads("\n".join(out))


@pytest.fixture
def project(tmp_path, monkeypatch, capsys):
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.chdir(root)
    return Project(root, capsys)


class TestRuns:
    def test_a_row_for_each_newest_first(self, project):
        first = project.add(
            record(calls=(call(),)), record("gift", "failed"), checkout=Checkout(commit=COMMIT, dirty=True, branch="x" * 40)
        )
        second = project.add(
            record(calls=(call(), call(cost_usd=None))),
            *(record(str(number), outcome) for number, outcome in enumerate(["error", "unscored", "not_run"])),
            minutes=1,
            complete=False,
            checkout=Checkout(),
        )
        assert project.run("runs") == (
            0,
            [
                "run                     commit       branch                    trials  passed  failed  no verdict  pass rate        cost",
                f"{second.id}  -            -                              4       1       0           3     100.0%  >= $0.5000  interrupted",
                f"{first.id}  3b4f2aa9c0+  xxxxxxxxxxxxxxxx…xxxxxxx       2       1       1           0      50.0%     $0.5000",
            ],
            [],
        )

    def test_a_limit(self, project):
        project.add(record())
        newest = project.add(record(), minutes=1)
        assert [line.split()[0] for line in project.run("runs", "--limit", "1")[1]] == ["run", newest.id]

    @pytest.mark.parametrize("limit", ["0", "-1", "many", "1" * 12])
    def test_a_limit_that_is_none(self, project, capsys, limit):
        with pytest.raises(SystemExit) as ended:
            main(["runs", f"--limit={limit}"])
        assert ended.value.code == 2
        assert f"{limit!r} is not a whole number of at least 1" in capsys.readouterr().err

    def test_json(self, project):
        made = project.add(record(calls=(call(),)), record("gift", "failed"))
        (data,) = project.json("runs")
        assert data["id"] == made.id
        assert (data["commit"], data["dirty"], data["branch"]) == (COMMIT, False, "main")
        assert (data["outcomes"], data["pass_rate"]) == ({"passed": 1, "failed": 1}, 0.5)
        assert (data["calls"], data["cost_usd"], data["unpriced_calls"], data["latency_p95_s"]) == (1, 0.5, 0, 2.0)
        assert (data["models"], data["options"]) == (["gpt-test"], {"record": "none", "arguments": ["evals"]})

    def test_a_run_without_trials(self, project):
        made = project.add()
        assert project.run("runs")[1][1].split() == [made.id, "3b4f2aa9c0", "main", "0", "0", "0", "0", "-", "-"]
        assert project.json("show", "latest")["trials"] == []
        assert project.run("show", "latest")[1][-1].startswith("suite  cases")

    def test_what_a_store_holds_acts_on_no_terminal(self, project):
        bad = "\x1b[31m\u202e"
        shown = "\\x1b[31m\\u202e"
        made = project.add(
            record(f"id{bad}", "failed", suite=f"s{bad}", reason=bad, tags=(bad,), calls=(call(model=bad),)),
            checkout=Checkout(commit=f"{bad}{COMMIT}", branch=bad),
            options={"keyword": bad},
            versions={"python": bad},
            gate=GateWord(result="regressed", lines=(bad,)),
        )
        for command in (("runs",), ("show", made.id), ("history",), ("show", made.id, "--json"), ("runs", "--json")):
            status, out, _ = project.run(*command)
            assert status == 0
            assert not {"\x1b", "\u202e"} & set("".join(out)), command
        assert shown in "".join(project.run("show", made.id)[1])


class TestGateWord:
    def test_of_a_run_is_its_last_column(self, project):
        for result in ("regressed", None):
            project.add(record(), gate=GateWord(result=result))
        project.add(record(), gate=GateWord(result="passed"), complete=False)
        _, out, _ = project.run("runs")
        assert sorted(line.split("$0.0000")[-1].rpartition("  ")[2] for line in out[1:]) == ["interrupted", "no decision", "regressed"]

    def test_is_shown_whole(self, project):
        project.add(record(), gate=GateWord(result="regressed", lines=("refunds: regressed: 9 of 30 cases got worse", "  worse: gift")))
        _, out, _ = project.run("show", "latest")
        assert out[out.index("gate") :] == ["gate", "  refunds: regressed: 9 of 30 cases got worse", "    worse: gift"]
        assert project.json("show", "latest")["gate"] == {
            "result": "regressed",
            "lines": ["refunds: regressed: 9 of 30 cases got worse", "  worse: gift"],
        }

    def test_of_a_run_without_a_gate_is_none(self, project):
        project.add(record())
        assert "gate" not in project.run("show", "latest")[1]
        assert project.json("show", "latest")["gate"] is None


class TestShow:
    def test_a_run_in_full(self, project):
        made = project.add(full_record(), record("gift"), record("x", "error", reason="OSError: down\nmore"), exit_status=1)
        status, out, err = project.run("show", made.id[:18])
        assert (status, err) == (0, [])
        assert out == [
            f"run {made.id}",
            "  2026-01-31 23:59:59 to 00:00:04 UTC, complete, exit status 1",
            f"  commit {COMMIT} on main",
            "  options: record none, arguments evals",
            "  models: gpt-test",
            "  judges: openai:judge-1 0123abcd",
            "  system prompts: 213c22ed72",
            "  versions: python 3.11.7",
            "",
            "suite                             cases  passed  failed  error  unscored  not run  pass rate  calls  tokens in  out     cost  judge cost",
            "evals/test_shop.py::test_refunds      3       1       1      1         0        0      50.0%      1         11    7  $0.5000     unknown",
            "  refunds                             1       0       1      0         0        0       0.0%      1         11    7  $0.5000     unknown",
            "  ünïcode                             1       0       1      0         0        0       0.0%      1         11    7  $0.5000     unknown",
            "app: 1 call, 11 + 7 tokens, cost $0.00 now, $0.5000 when recorded",
            "judges: 1 call, unknown + unknown tokens, cost unknown",
            "in all: 2 calls, >= 11 + >= 7 tokens, cost unknown now, $0.5000 when recorded (1 call without a price: no price)",
            "",
            "failed  evals/test_shop.py::test_refunds[late] trial 3  failed exact_match 0.00",
            "error   evals/test_shop.py::test_refunds[x] trial 1     OSError: down\\nmore",
        ]

    def test_the_latest_with_changed_files_and_without_git(self, project):
        project.add(record(), checkout=Checkout(commit=COMMIT, dirty=True), complete=False)
        assert project.run("show", "latest")[1][1:3] == [
            "  2026-01-31 23:59:59 to 00:00:04 UTC, ended before every trial was made, exit status 0",
            f"  commit {COMMIT}, files changed since",
        ]
        project.add(record(), checkout=Checkout(), minutes=1)
        assert project.run("show", "latest")[1][2] == "  unknown to git"

    def test_many_failures(self, project):
        project.add(*(record(f"c{number}", "failed") for number in range(22)))
        _, out, _ = project.run("show", "latest")
        assert out[-1] == "and 2 more that did not pass (--all shows them)"
        assert sum(line.startswith("failed ") for line in out) == 20
        assert sum(line.startswith("failed ") for line in project.run("show", "latest", "--all")[1]) == 22

    def test_json(self, project):
        project.add(full_record())
        data = project.json("show", "latest")
        (trial,) = data["trials"]
        assert (trial["case_id"], trial["outcome"], trial["number"]) == ("late", "failed", 3)
        assert trial["calls"][0]["prompt_hash"].startswith("213c22ed72")
        assert data["outcomes"] == {"failed": 1}

    def test_no_such_run(self, project):
        project.add(record())
        wanted = "touchstone: .touchstone/runs.db: no run is called 'nope'; `touchstone runs` lists them"
        assert project.run("show", "nope") == (2, [], [wanted])


class TestHistory:
    def test_a_mark_for_each_run_oldest_first(self, project):
        first = project.add(record(), record("b", "failed"))
        second = project.add(record(), minutes=1, complete=False)
        third = project.add(record("a", "error"), minutes=2, checkout=Checkout())
        assert project.run("history") == (
            0,
            [
                "pass rate, all suites, from 50.0% to 100.0%",
                f"{first.id}  3b4f2aa9c0   50.0%  |o                                       |",
                f"{second.id}  3b4f2aa9c0  100.0%  |                                       o|  interrupted",
                f"{third.id}  -                -  |                                        |",
            ],
            [],
        )

    def test_cost_and_latency(self, project):
        project.add(record(calls=(call(cost_usd=0.25),)))
        project.add(record(calls=(call(), call(cost_usd=None))), minutes=1)
        _, out, _ = project.run("history", "--metric", "cost")
        assert out[0] == "cost of all calls, whenever they were paid, all suites, from $0.2500 to $0.2500"
        assert [line.split()[2] for line in out[1:]] == ["$0.2500", "unknown"]
        assert out[1].endswith("|                    o                   |")
        _, out, _ = project.run("history", "--metric", "latency_p95", "--limit", "1")
        assert out[0] == "seconds within which 95 % of the trials had their answers, all suites, from 4.00 s to 4.00 s"

    def test_nothing_known(self, project):
        project.add(record("a", "error"))
        assert project.run("history")[1][0] == "pass rate, all suites: not known"
        assert project.run("history", "--metric", "latency_p95")[1][1].split()[2] == "unknown"

    def test_of_one_suite(self, project):
        made = project.add(record(), record("b", "failed", suite="other"))
        project.add(record(), minutes=1)
        _, out, _ = project.run("history", "--suite", "other")
        assert out[0] == "pass rate, other, from 0.0% to 0.0%"
        assert [line.split()[0] for line in out[1:]] == [made.id]

    def test_no_such_suite_and_no_run(self, project):
        project.add(record())
        wanted = f"touchstone: no stored run has trials of nope; the suites are: {SUITE}"
        assert project.run("history", "--suite", "nope") == (2, [], [wanted])
        RunStore.open("empty.db", base=project.root)
        assert project.run("history", "--store", "empty.db") == (2, [], [NOTHING])

    def test_json(self, project):
        made = project.add(record())
        assert project.json("history", "--suite", SUITE) == {
            "metric": "pass_rate",
            "suite": SUITE,
            "runs": [{"run": made.id, "started": made.started, "commit": COMMIT, "value": 1.0}],
        }


class TestTheStore:
    def test_there_is_none(self, project):
        for command in ("runs", "history"):
            assert project.run(command) == (2, [], [NOTHING])
        assert list((project.root / ".touchstone").iterdir()) == []

    def test_an_empty_one(self, project):
        assert project.store.runs() == []
        assert len(project.run("runs")[1]) == 1

    def test_from_a_folder_inside(self, project, monkeypatch):
        project.add(record())
        (project.root / "evals").mkdir()
        monkeypatch.chdir(project.root / "evals")
        assert len(project.run("runs")[1]) == 2

    def test_not_beyond_the_repository(self, project, monkeypatch):
        project.add(record())
        inside = project.root / "inside"
        (inside / ".git").mkdir(parents=True)
        monkeypatch.chdir(inside)
        assert project.run("runs") == (2, [], [NOTHING])

    def test_an_option_and_the_environment(self, project, monkeypatch):
        project.add(record(), store=RunStore.open("other.db", base=project.root))
        assert len(project.run("runs", "--store", "other.db")[1]) == 2
        monkeypatch.setenv("TOUCHSTONE_STORE", "other.db")
        assert len(project.run("runs")[1]) == 2
        monkeypatch.setenv("TOUCHSTONE_STORE", "off")
        assert project.run("runs") == (2, [], [NOTHING])

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("pytest.ini", "[pytest]\nllm_store = other.db\naddopts = --durations=5%%\n"),
            ("tox.ini", "[tox]\nenvlist = a\n[pytest]\nllm_store=other.db\n"),
            ("setup.cfg", "[tool:pytest]\nllm_store = other.db\n"),
            ("pyproject.toml", '[tool.pytest.ini_options]\nllm_store = "other.db"\n'),
            ("pyproject.toml", '[tool.pytest]\nllm_store = "other.db"\n'),
            ("pytest.toml", '[pytest]\nllm_store = "other.db"\n'),
        ],
    )
    def test_the_configuration_of_pytest(self, project, name, text):
        (project.root / "tox.ini").write_text("[tox]\nenvlist = a\n")
        (project.root / name).write_text(text)
        project.add(record(), store=RunStore.open("other.db", base=project.root))
        assert len(project.run("runs")[1]) == 2

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("pyproject.toml", "[tool.other]\na = 1\n"),
            ("pyproject.toml", "[tool]\npytest = 1\n"),
            ("pyproject.toml", "[tool.pytest.ini_options]\nllm_store = 1\n"),
            ("pytest.ini", "[other]\n"),
            ("pytest.ini", "[pytest]\n"),
        ],
    )
    def test_a_configuration_that_does_not_say(self, project, name, text):
        (project.root / name).write_text(text)
        project.add(record())
        assert len(project.run("runs")[1]) == 2

    @pytest.mark.parametrize(
        ("name", "text"), [("pytest.ini", b"no section"), ("pyproject.toml", b"= ="), ("pytest.ini", b"[pytest]\n\xff")]
    )
    def test_a_configuration_that_cannot_be_read(self, project, name, text):
        (project.root / name).write_bytes(text)
        wanted = f"touchstone: {name}: cannot be read, so what is configured for pytest is not known; correct it"
        assert project.run("runs") == (2, [], [wanted])

    def test_a_configured_project_without_a_run(self, tmp_path, monkeypatch, capsys):
        inside = tmp_path / "project" / "evals"
        inside.mkdir(parents=True)
        (tmp_path / ".git").mkdir()
        (tmp_path / "project" / "pytest.ini").write_text("[pytest]\nllm_store = other.db\n")
        project = Project(tmp_path, capsys)
        (tmp_path / ".touchstone").rmdir()
        monkeypatch.chdir(inside)
        project.add(record(), store=RunStore.open("other.db", base=tmp_path / "project"))
        assert len(project.run("runs")[1]) == 2

    def test_a_broken_one(self, project):
        (project.root / ".touchstone" / "runs.db").write_bytes(b"no database at all" * 100)
        wanted = (
            "touchstone: .touchstone/runs.db: file is not a database; it is no database; move it away, and the next run begins a new one"
        )
        assert project.run("runs") == (2, [], [wanted])

    def test_one_of_a_newer_version(self, project):
        assert project.store.runs() == []
        connection = sqlite3.connect(project.root / ".touchstone" / "runs.db")
        connection.execute("INSERT INTO touchstone_schema VALUES (99)")
        connection.commit()
        connection.close()
        _, _, (complaint,) = project.run("show", "latest")
        assert complaint.startswith("touchstone: .touchstone/runs.db: it was written by a newer pytest-touchstone (schema 99")

    def test_a_server_whose_password_is_not_told(self, project):
        postgres.skip_without("sqlalchemy", "psycopg")
        status, out, (complaint,) = project.run("runs", "--store", f"postgresql+psycopg://ci:hunter22hunter22@/evals?host={project.root}")
        assert (status, out) == (2, [])
        assert complaint.startswith("touchstone: run store postgresql:///evals: connection is bad: ")
        assert "hunter22" not in complaint


class TestPrune:
    def test_it_says_what_goes_and_what_stays(self, project):
        first, second, _third = (project.add(record(), minutes=minutes) for minutes in range(3))
        told = [f"would remove {second.id}", f"would remove {first.id}", "2 of 3 runs would go, 1 would stay"]
        assert project.run("runs", "prune", "--older-than", "1d", "--dry-run") == (0, told, [])
        assert project.run("runs", "prune", "--older-than", "36500d") == (0, ["0 of 3 runs removed, 3 left"], [])
        assert project.run("runs", "prune", "--keep", "2") == (0, [f"removed {first.id}", "1 of 3 runs removed, 2 left"], [])
        assert len(project.store.runs()) == 2

    @pytest.mark.parametrize("place", ["before", "behind"])
    def test_another_store_may_be_named_on_either_side(self, project, place):
        other = RunStore.open("other.db", base=project.root)
        made = [project.add(record(), store=other, minutes=minutes) for minutes in range(2)]
        named = ["--store", "other.db"]
        before, behind = (named, []) if place == "before" else ([], named)
        assert project.run("runs", *before, "prune", "--keep", "1", *behind)[1][0] == f"removed {made[0].id}"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((), "one of the arguments --keep --older-than is required"),
            (("--keep", "0"), "argument --keep: '0' is not a whole number of at least 1"),
            (("--older-than", "90"), "argument --older-than: '90' is no number of days; write 90d"),
            (("--keep", "1", "--older-than", "1d"), "argument --older-than: not allowed with argument --keep"),
        ],
    )
    def test_what_cannot_be_meant(self, project, arguments, message):
        with pytest.raises(SystemExit) as stopped:
            project.run("runs", "prune", *arguments)
        assert stopped.value.code == 2
        assert message in project.capsys.readouterr().err

    def test_nothing_is_stored(self, project):
        assert project.run("runs", "prune", "--keep", "1") == (2, [], [NOTHING])
