"""The hooks that a conftest or another plugin may implement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from pytest_touchstone.export.write import Dataset
    from pytest_touchstone.trial import Scorer, Trial


def pytest_llm_scorers() -> Sequence[Scorer]:  # type: ignore[empty-body]
    """Register scorers that tests name by text.

    Called once in every process that runs golden tests, before the first trial. Return scorers, each with a name of its own
    (`@scorer` gives one); all implementations are asked. A test then writes `case.check("house_style")`.
    A name that is taken by another registered scorer stops the run with a usage error.

    Example::

        # conftest.py
        from pytest_touchstone import scorer

        @scorer(name="house_style")
        def house_style(trial):
            return "Dear customer" not in trial.output

        def pytest_llm_scorers():
            return [house_style]

    Added in version 0.1.
    """


def pytest_llm_request(request: dict[str, Any]) -> None:
    r"""Change what counts of a request when its recording is looked for.

    Called with every request of a golden test, in the process and thread that makes it, before its recording is looked up or made;
    never where `--llm-record` is `off`. `request` is a copy, its secrets redacted: `method`, `url`, and `body`, which is a JSON value, a
    text, or None for bodies that are neither. Change it in place. What is really sent stays as it is.
    Requests that are equal afterwards are one request, and a recording keeps the changed form. So change it in the same way every time:
    replace what differs from run to run (dates, random ids), and nothing that the answer depends on.
    Every implementation is called. One that raises makes the trial an error that names it.

    Example::

        # conftest.py
        import re

        def pytest_llm_request(request):
            for message in request["body"].get("messages", []) if isinstance(request["body"], dict) else []:
                if isinstance(message["content"], str):
                    message["content"] = re.sub(r"Today is [\d-]+", "Today is (some day)", message["content"])

    Added in version 0.1.
    """


def pytest_llm_example(example: dict[str, Any], trial: Trial) -> bool | None:
    """Change or drop a training example before it is exported.

    Called with `--llm-export`, in the process that ran the trial, once for every example that a trial offers (one, or with
    `--llm-export-call all` one for each call); never for a holdout case. Change `example` in place: `prompt` and `completion` are
    lists of chat messages, `tools` a list of tool definitions, `rejected` a list with the answer that failed, empty where none did.
    Return False to drop it; the manifest then says so. Every implementation is called.
    An example that is no longer valid afterwards stops the export with an error that names the case.

    Example::

        # conftest.py
        def pytest_llm_example(example, trial):
            if "internal" in trial.tags:
                return False
            example["prompt"].insert(0, {"role": "system", "content": "You are the support desk."})

    Added in version 0.1.
    """


def pytest_llm_export(dataset: Dataset, config: pytest.Config) -> None:
    """Take the training data somewhere once they are written: a hub, a bucket, a registry.

    Called with `--llm-export`, once, at the end of the session, in the process that wrote the files (with pytest-xdist, the
    controlling one); never where the export was stopped by an error. `dataset.folder` is where they lie, `dataset.manifest` what
    they hold. `dataset.train_file` is None where no trial offered an example. How the run ended does not matter: its trials usually
    failed. Every implementation is called, until one raises; that is told, the files stay, and a run that would end with status 0 or 1
    ends with 4.

    Example::

        # conftest.py
        import shutil

        def pytest_llm_export(dataset, config):
            if dataset.train_file is not None:
                shutil.copy(dataset.train_file, config.rootpath / "latest.jsonl")

    Added in version 0.1.
    """
