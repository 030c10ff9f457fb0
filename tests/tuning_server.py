"""OpenAI's fine-tuning API on a loopback port: files, jobs, events, checkpoints, cancelling, in the wire format of the official SDK.

`Tuning` is an `answer` for a `FakeProvider`. A job takes one look at it to get from each of `states` to the next.
"""

from __future__ import annotations

import email.parser
import email.policy
from urllib.parse import parse_qs, urlsplit

from providers import Reply

METRICS = {"step": 1, "train_loss": 1.5, "total_steps": 2, "train_mean_token_accuracy": 0.4}
MODEL = "ft:gpt-4.1-mini-2025-04-14:acme:shop:AbC123"


class Tuning:
    """The server's state; `errors` are replies to be given first, by method and the last part of the path (`POST jobs`)."""

    def __init__(self):
        self.files = {}
        self.file_states = ["processed"]
        self.jobs = {}
        self.states = ["validating_files", "running", "succeeded"]
        self.error = None
        self.errors = {}
        self.model = MODEL
        self.step_metrics = [METRICS, {**METRICS, "step": 2, "train_loss": 0.5, "full_valid_loss": 0.7}]
        self.page = 2  # events a page

    def __call__(self, seen):
        url = urlsplit(seen.path)
        parts = url.path.removeprefix("/v1/").split("/")
        scripted = self.errors.get(f"{seen.method} {parts[-1]}")
        if scripted:
            reply = scripted.pop(0)
            if reply is not None:
                return reply
        if parts[0] == "files":
            return self.file(seen, parts)
        return self.job(seen, parts[2:], {name: values[0] for name, values in parse_qs(url.query).items()})

    def file(self, seen, parts):
        if seen.method == "POST":
            form = _form(seen)
            name = f"file-{len(self.files) + 1}"
            self.files[name] = form
            return Reply(body=self.file_object(name, self.file_states[0]))
        if parts[1] not in self.files:
            return not_found(f"No such File object: {parts[1]}")
        if len(self.file_states) > 1:
            self.file_states.pop(0)
        return Reply(body=self.file_object(parts[1], self.file_states[0]))

    def file_object(self, name, status):
        details = "line 3 has no assistant message" if status == "error" else None
        size = len(self.files[name]["file"])
        base = {"id": name, "object": "file", "bytes": size, "created_at": 1, "filename": "training.jsonl", "purpose": "fine-tune"}
        return {**base, "status": status, "status_details": details}

    def job(self, seen, parts, query):
        if not parts:
            return self.create(seen.json) if seen.method == "POST" else self.listed(query)
        if parts[0] not in self.jobs:
            return not_found(f"Could not find fine tune: {parts[0]}")
        if parts[1:] == ["events"]:
            return self.events(parts[0], query)
        if parts[1:] == ["checkpoints"]:
            return Reply(body={"object": "list", "data": [checkpoint(parts[0])], "has_more": False, "first_id": "c1", "last_id": "c1"})
        job = self.jobs[parts[0]]
        if parts[1:] == ["cancel"]:
            if job["status"] in {"succeeded", "failed", "cancelled"}:
                return Reply(status=400, error=f"Job has already {job['status']}")
            job["status"] = "cancelled"
        elif job["left"] and job["status"] != "cancelled":
            job["status"] = job["left"].pop(0)
        return Reply(body=self.job_object(parts[0]))

    def create(self, asked):
        name = f"ftjob-{len(self.jobs) + 1}"
        self.jobs[name] = {"asked": asked, "status": self.states[0], "left": list(self.states[1:])}
        return Reply(body=self.job_object(name))

    def listed(self, query):
        wanted = {name[len("metadata[") : -1]: value for name, value in query.items() if name.startswith("metadata[")}
        found = [name for name, job in self.jobs.items() if wanted.items() <= (job["asked"].get("metadata") or {}).items()]
        return Reply(body={"object": "list", "data": [self.job_object(name) for name in found], "has_more": False})

    def job_object(self, name):
        job = self.jobs[name]
        asked, status = job["asked"], job["status"]
        done = status == "succeeded"
        kind = asked["method"]["type"]
        auto = {"batch_size": 1, "learning_rate_multiplier": 1.8, "n_epochs": 3}
        chosen = {**auto, **asked["method"][kind]["hyperparameters"]}
        return {
            "id": name,
            "object": "fine_tuning.job",
            "created_at": 1,
            "error": self.error if status == "failed" else None,
            "fine_tuned_model": self.model if done else None,
            "finished_at": 2 if done else None,
            "hyperparameters": auto if kind == "supervised" else {},
            "method": {"type": kind, kind: {"hyperparameters": chosen}},
            "model": asked["model"],
            "organization_id": "org-1",
            "result_files": [],
            "seed": asked.get("seed", 0),
            "status": status,
            "trained_tokens": 1234 if done else None,
            "training_file": asked["training_file"],
            "validation_file": asked.get("validation_file"),
            "metadata": asked.get("metadata"),
            "estimated_finish": None,
            "integrations": [],
        }

    def events(self, name, query):
        """The newest first, a page at a time, as OpenAI lists them."""
        status = self.jobs[name]["status"]
        told = [message("Created fine-tuning job")]
        if status in {"running", "succeeded"}:
            told.append(message("Fine-tuning job \x1b[31mstarted"))
            told += [metrics(values) for values in self.step_metrics[: 1 if status == "running" else None]]
        if status == "succeeded":
            told.append(message("The job has successfully completed"))
        listed = [{**event, "id": f"ftevent-{number}"} for number, event in enumerate(told)][::-1]
        after = query.get("after")
        start = 0 if after is None else next(at for at, event in enumerate(listed, 1) if event["id"] == after)
        page = listed[start : start + self.page]
        return Reply(body={"object": "list", "data": page, "has_more": start + self.page < len(listed)})


def message(text):
    return {"object": "fine_tuning.job.event", "created_at": 1, "level": "info", "message": text, "type": "message", "data": {}}


def metrics(values):
    text = f"Step {values['step']}/{values['total_steps']}: training loss={values['train_loss']}"
    return {"object": "fine_tuning.job.event", "created_at": 1, "level": "info", "message": text, "type": "metrics", "data": values}


def checkpoint(job):
    return {
        "id": "ftckpt-1",
        "object": "fine_tuning.job.checkpoint",
        "created_at": 1,
        "fine_tuned_model_checkpoint": f"{MODEL}:ckpt-step-1",
        "fine_tuning_job_id": job,
        "metrics": {"step": 1, "train_loss": 1.5},
        "step_number": 1,
    }


def not_found(text):
    return Reply(status=404, body={"error": {"message": text, "type": "invalid_request_error", "param": "id", "code": None}})


def failure(status, text, code=None, **more):
    """An error body as OpenAI sends it; a server that asks to wait asks for a millisecond."""
    body = {"error": {"message": text, "type": "invalid_request_error", "param": None, "code": code}}
    return Reply(status=status, body=body, headers={"retry-after-ms": "1"}, **more)


def _form(seen):
    """The fields of a multipart form; the file as bytes."""
    head = f"content-type: {seen.headers['content-type']}\r\n\r\n".encode()
    whole = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + seen.body)
    fields = {part.get_param("name", header="content-disposition"): part.get_payload(decode=True) for part in whole.iter_parts()}
    return {name: value if name == "file" else value.decode() for name, value in fields.items()}
