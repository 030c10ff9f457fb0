"""The recorder: what becomes of every HTTP request that a trial makes, in each recording mode."""

from __future__ import annotations

import contextlib
import contextvars
import heapq
import shlex
import sys
import threading
import time
import weakref
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from pytest_touchstone.errors import BudgetSpent, RecordingError, RecordingMiss
from pytest_touchstone.recording.body import decode_body, encode_body, is_event_stream
from pytest_touchstone.recording.evidence import FILE_NAME as USED
from pytest_touchstone.recording.evidence import digest, prune, with_asked, write_evidence
from pytest_touchstone.recording.exchange import Stored
from pytest_touchstone.recording.guard import NetworkGuard, PlaceholderKeys, is_loopback
from pytest_touchstone.recording.journal import Journal, MergeReport, merge_journals, merge_lock, read_free_journals, refusal_line
from pytest_touchstone.recording.key import Asked, WireRequest, ask, redact_query
from pytest_touchstone.recording.library import Library
from pytest_touchstone.recording.redact import REDACTED, Redactor
from pytest_touchstone.recording.store import Entry, encode_entry, kept_headers, recording_path, shown_path
from pytest_touchstone.recording.threads import ThreadCarrier
from pytest_touchstone.recording.transport import TransportHooks
from pytest_touchstone.recording.usage import price
from pytest_touchstone.recording.wire import answer_body, api_of, is_terminal, read_call, transient_error
from pytest_touchstone.text import visible
from pytest_touchstone.trial import asking_as, current_role

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from pytest_touchstone.recording.budget import Budget
    from pytest_touchstone.recording.evidence import Evidence
    from pytest_touchstone.recording.key import KeyRules
    from pytest_touchstone.recording.pace import Pace, Paces, Slot
    from pytest_touchstone.recording.wire import Api
    from pytest_touchstone.settings import RecordMode
    from pytest_touchstone.trial import Call, Role

__all__ = ["MergeReport", "Owner", "Recorder"]

# What httpx calls a request that never left the machine, so that nobody bills it.
_NEVER_SENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout"})
# Answers that say "not now" or "not you": the retry's answer takes their place.
NEVER_RECORDED = frozenset({401, 403, 408, 409, 429})

_scope: contextvars.ContextVar[_Scope | None] = contextvars.ContextVar("touchstone_owner", default=None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Owner:
    """Whose calls these are.

    `module` is the absolute path of the test module, `test` the node id without the module (`test_refunds[late-return]`), `trial` counts
    from 1. `on_call` is told of every finished call, live or replayed, in the thread that made it; `on_miss` of the message of every
    request that no recording answers, and `on_refused` of why the run's budget refused one, because code under test may swallow the error.
    """

    module: Path
    test: str
    trial: int
    on_call: Callable[[Call], None]
    on_miss: Callable[[str], None]
    on_refused: Callable[[str], None] = lambda _: None


class Recorder:
    """Records and replays the HTTP requests of trials, in one process.

    Every request made through httpx, httpx2 or aiohttp inside `own` belongs to that owner:

    - `none`: answered from recordings. Without one, RecordingMiss is raised, unless the host is in `allow_hosts`. No key is needed, and
      connections beyond loopback and `allow_hosts` are blocked for the whole process.
    - `missing`: answered from recordings, else live and recorded.
    - `all`: live and recorded anew.
    - `rewrite`: as `all`; entries that a full run of a module did not ask for are dropped when it is merged.
    - `off`: live, nothing is stored.

    Recordings are looked up as they were when the session began, with what killed sessions left behind: answers recorded in this session
    are not reused, so each trial gets its own. The n-th identical request of a trial gets the n-th answer; numbers are given when requests
    start, and an answer that is not recorded (401, 403, 408, 409, 429, 5xx, a broken connection) gives its number back, for the retry.
    Identical requests that run at the same time in several threads may so swap their answers, and nothing else.

    A live request waits for its turn at its host (`paces`), and a live model call counts towards `budget`; None: neither limit.
    """

    def __init__(
        self,
        *,
        mode: RecordMode,
        journal_dir: Path,
        rootdir: Path,
        allow_hosts: tuple[str, ...] = (),
        environ: Mapping[str, str],
        paces: Paces | None = None,
        budget: Budget | None = None,
        rules: KeyRules | None = None,
        carry: Sequence[contextvars.ContextVar[Any]] = (),
    ) -> None:
        """Touch nothing yet; `environ` is where secrets are learnt from, `rules` say what of a request counts.

        The context variables of `carry` travel into the threads that an owner starts, as the owner itself does.
        """
        self.mode: RecordMode = mode
        self.paces = paces
        self.budget = budget
        self.redactor = Redactor(environ)
        self._carry = carry
        self._rules = None if mode == "off" else rules
        self._rootdir = rootdir.resolve()
        self._journal_dir = journal_dir
        self._began = _now()
        self._journal = Journal(journal_dir)
        self._library = Library(self._rootdir)
        self._guard = NetworkGuard(allow_hosts)
        self._keys = PlaceholderKeys()
        self._hooks = TransportHooks(self)
        self._places: dict[Path, tuple[Path, str] | RecordingError] = {}
        self._threads = ThreadCarrier(self._capture)
        self._numbers: weakref.WeakKeyDictionary[Owner, _Numbers] = weakref.WeakKeyDictionary()
        self._open: set[Exchange] = set()
        self._active = False
        self._refused: list[str] = []

    def start(self) -> None:
        """Hook the transports and threads; in `none`, set placeholder keys and block the network."""
        if self._active:
            return
        self._active = True
        if self.mode in {"none", "missing"}:
            self._library = Library(self._rootdir, read_free_journals(self._journal_dir, redactor=self.redactor))
        if self.mode == "none":
            self._keys.start()
            self._guard.start()
        self._threads.start()
        self._hooks.start()

    def stop(self) -> None:
        """Undo what `start` did, and let go of the journal, so that it can be merged."""
        if not self._active:
            return
        self._active = False
        self._settle(None)
        self._hooks.stop()
        self._threads.stop()
        self._guard.stop()
        self._keys.stop()
        self._journal.close()

    def own(self, owner: Owner) -> AbstractContextManager[None]:
        """Inside the context given, and in threads and tasks started inside, HTTP requests are the owner's.

        An owner that is entered again goes on counting its requests where it stopped.

        Raises:
            RecordingError: the recordings of its module cannot be used.
        """
        self._hooks.catch_up()
        return _Owning(self._scope_of(owner))

    def settle(self, owner: Owner) -> None:
        """Nothing of this owner's answers is read any more: streams that nobody closed are stored, and told, as far as they were read."""
        self._settle(owner)

    def _settle(self, owner: Owner | None) -> None:
        for exchange in tuple(self._open):
            if owner is None or exchange.owner is owner:
                exchange.close()

    def asked(self) -> dict[str, list[str]]:
        """What was asked for in this process: for each recording file, the digests of its entries; plain data for another process."""
        return {recording: sorted(map(digest, ids)) for recording, ids in self._library.asked().items()}

    def merge(self, evidence: Evidence | None = None) -> MergeReport:
        """Move every journal that nobody writes any more, this process's own included, into the recording files.

        To be called once, at the end of a session, by its only or controlling process. In `none` and `off` no recording is written.
        In `rewrite`, what `evidence` shows to be needed no more is dropped. The evidence is kept beside the journals, for pruning later.
        """
        self._journal.close()
        report = MergeReport()
        if self.mode not in {"none", "off"}:
            report = merge_journals(self._journal_dir, rootdir=self._rootdir, redactor=self.redactor, started=self._began)
            unwritten = tuple(message for message in self._refused if message not in report.refused)
            self._refused.clear()
            report = replace(report, refused=report.refused + unwritten)
        if self.mode == "off" or evidence is None or not evidence.modules:
            return report
        evidence = with_asked(evidence, {path: frozenset(map(digest, ids)) for path, ids in report.asked.items()})
        if self.mode == "rewrite":
            report = replace(report, notes=(*report.notes, *self._drop_unasked(evidence)))
        # A folder that cannot be written keeps pruning from working, and nothing else.
        with contextlib.suppress(OSError):
            write_evidence(self._journal_dir.parent / USED, replace(evidence, ended=time.time()))
        return report

    def _drop_unasked(self, evidence: Evidence) -> list[str]:
        notes: list[str] = []
        with merge_lock(self._journal_dir):
            for run in evidence.modules:
                recording = recording_path(self._rootdir / run.module)
                try:
                    notes += prune(recording, self._rootdir, evidence).lines()
                except RecordingError as error:
                    notes += [
                        f"nothing was dropped from {shown_path(recording, self._rootdir)}, because it cannot be used:",
                        *str(error).splitlines(),
                    ]
        return notes

    def redact(self, text: str) -> str:
        """The text without the secrets that the recorder knows of, and without what shortening left of one; for reports and exports."""
        return self.redactor.redact_shown(text)

    # What the transport hook asks

    def owned(self) -> bool:
        """Whether the current request has an owner here."""
        scope = _scope.get()
        return self._active and scope is not None and scope.recorder is self

    def check_unowned(self, url: str) -> None:
        """Block a request without an owner in `none` before a client wraps the error; elsewhere it is nobody's business."""
        if self._active and self.mode == "none" and _scope.get() is None:
            parts = urlsplit(url)
            self._guard.check(parts.hostname, parts.port)

    def begin(self, request: WireRequest) -> Exchange:
        """Decide where the answer of an owned request comes from.

        Raises:
            RecordingMiss: in `none`, no recording answers it; in any mode, a hook of the project made something else of the request.
        """
        scope = cast("_Scope", _scope.get())
        try:
            asked = ask(request, self.redactor, self._rules)
        except RecordingError as error:
            raise self.miss(scope, f"a request of {visible(scope.node)} has no key: {error}") from error
        occurrence = scope.numbers.take(asked.key)
        self._library.note(scope.module, (asked.key, scope.owner.test, scope.owner.trial, occurrence))
        exchange = Exchange(recorder=self, scope=scope, asked=asked, url=request.url, occurrence=occurrence)
        entry = self._recorded(scope, asked, occurrence)
        if entry is None and self.mode == "none" and not self._guard.names(asked.host):
            scope.numbers.give_back(asked.key, occurrence)
            owner = scope.owner
            raise self.miss(scope, self._library.explain_miss(scope.module, asked, owner.test, owner.trial, occurrence))
        if entry is not None:
            try:
                exchange.replay(entry)
            except RecordingError as error:
                raise self.miss(
                    scope, f"the recording of {visible(entry.test)} cannot be replayed: {error}; {scope.record_again}"
                ) from error
        if exchange.stored is None:
            self._open.add(exchange)
        return exchange

    def forget(self, exchange: Exchange) -> None:
        """This exchange is over."""
        self._open.discard(exchange)

    def miss(self, scope: _Scope, message: str) -> RecordingMiss:
        """Note a miss with its owner, because code under test may swallow the error that is to be raised."""
        clean = self.redact(message)
        scope.owner.on_miss(clean)
        return RecordingMiss(clean)

    def store(self, entry: Entry, url: str) -> None:
        """Append a call to the journal, unless it would take a secret along."""
        line = encode_entry(entry)
        if self.redactor.leaks(line):
            self.refuse(f"a call of {self.redact(entry.test)} to {url}: its line would hold a secret")
            return
        self._write(line)

    def refuse(self, message: str) -> None:
        """Note why a call is not stored; the session's report says so."""
        self._refused.append(message)
        self._write(refusal_line(message))

    def _write(self, line: str) -> None:
        try:
            self._journal.write(line)
        except OSError as error:
            self._refused.append(f"the journal in {self._journal_dir} cannot be written ({error}); make room or check its permissions")

    def _recorded(self, scope: _Scope, asked: Asked, occurrence: int) -> Entry | None:
        if self.mode not in {"none", "missing"}:
            return None
        return self._library.find(scope.module, asked.key, scope.owner.test, scope.owner.trial, occurrence)

    def _scope_of(self, owner: Owner) -> _Scope:
        module, relative = self._place(owner.module)
        numbers = self._numbers.get(owner) or self._numbers.setdefault(owner, _Numbers())
        return _Scope(recorder=self, owner=owner, module=module, relative=relative, numbers=numbers)

    def _place(self, path: Path) -> tuple[Path, str]:
        """What `_find_place` gives, found once: reading a broken file again for each trial would take minutes."""
        place = self._places.get(path)
        if place is None:
            try:
                place = self._find_place(path)
            except RecordingError as error:
                place = error
            self._places[path] = place
        if isinstance(place, RecordingError):
            raise RecordingError(*place.args)
        return place

    def _find_place(self, path: Path) -> tuple[Path, str]:
        """The resolved path of a test module, and the one relative to the rootdir; its recordings are read on the way."""
        module = path.resolve()
        if self.mode == "off":
            return module, ""
        if not module.is_relative_to(self._rootdir):
            msg = f"{module} is outside the rootdir {self._rootdir}, so its calls cannot be recorded; choose a --rootdir that holds it"
            raise RecordingError(msg)
        self._library.load(module)
        return module, module.relative_to(self._rootdir).as_posix()

    def _capture(self) -> Callable[[], AbstractContextManager[None]] | None:
        scope, role = _scope.get(), current_role()
        # Where threads inherit the context by themselves, a pool's thread must forget whose it was.
        if scope is None and not getattr(sys.flags, "thread_inherit_context", False):
            return None
        values = [(_scope, scope), *((variable, variable.get()) for variable in self._carry)]
        return lambda: _inside(values, role)


@contextlib.contextmanager
def _inside(values: Sequence[tuple[contextvars.ContextVar[Any], object]], role: Role) -> Generator[None]:
    tokens = [(variable, variable.set(value)) for variable, value in values]
    try:
        with asking_as(role, exactly=True):
            yield
    finally:
        for variable, token in tokens:
            variable.reset(token)


@dataclass(kw_only=True, slots=True)  # not frozen, which costs more than all else here: each trial makes many
class _Scope:
    """What travels in the context: the owner, its module (resolved, and relative to the rootdir), and its requests so far."""

    recorder: Recorder
    owner: Owner
    module: Path
    relative: str
    numbers: _Numbers

    @property
    def node(self) -> str:
        return f"{self.relative}::{self.owner.test}"

    @property
    def record_again(self) -> str:
        return f"record it again: pytest --llm-eval --llm-record all {shlex.quote(self.node)}"


class _Numbers:
    """Which occurrence numbers of each request are taken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: dict[str, int] = {}
        self._free: dict[str, list[int]] = {}

    def take(self, key: str) -> int:
        with self._lock:
            if free := self._free.get(key):
                return heapq.heappop(free)
            self._taken[key] = self._taken.get(key, 0) + 1
            return self._taken[key]

    def give_back(self, key: str, occurrence: int) -> None:
        with self._lock:
            heapq.heappush(self._free.setdefault(key, []), occurrence)


class _Owning:
    """The context in which a scope's requests are made; a class, since each trial enters it many times."""

    __slots__ = ("_scope", "_token")

    def __init__(self, scope: _Scope) -> None:
        self._scope = scope

    def __enter__(self) -> None:
        self._token = _scope.set(self._scope)

    def __exit__(self, *_: object) -> None:
        _scope.reset(self._token)


class Exchange:
    """One request of an owner and its answer, from the first byte to the call that is told."""

    def __init__(self, *, recorder: Recorder, scope: _Scope, asked: Asked, url: str, occurrence: int) -> None:
        """Start the clock."""
        self.stored: Stored | None = None
        self._recorder = recorder
        self._scope = scope
        self._asked = asked
        self._api: Api | None = api_of(asked)
        self._url = url
        self._occurrence = occurrence
        self._role: Role = current_role()
        self._started = time.perf_counter()
        self._status: int | None = None
        self._headers: dict[str, str] = {}
        self._chunks: list[bytes] = []
        self._unended = b""
        self._slot: Slot | None = None
        self._billable = True
        self._streams = False
        self._done = False

    @property
    def owner(self) -> Owner:
        """Whose request this is."""
        return self._scope.owner

    def replay(self, entry: Entry) -> None:
        """Answer with a recording."""
        content = decode_body(entry.body)
        truncated = self._truncated if entry.incomplete else None
        self.stored = Stored(status=entry.status, headers=entry.headers, content=content, truncated=truncated)
        self._done = True
        self._tell(entry.status, entry.body, latency_s=entry.latency_s, cost=(entry.cost_usd, entry.cost_reason), replayed=True)

    def take_turn(self) -> None:
        """Wait in this thread until the request may leave.

        Raises:
            BudgetSpent: it is a model call, and the run's budget is used up.
        """
        with self._turn() as pace:
            self._slot = None if pace is None else pace.take()

    async def atake_turn(self) -> None:
        """As `take_turn`, without blocking the event loop."""
        with self._turn() as pace:
            self._slot = None if pace is None else await pace.atake()

    @contextlib.contextmanager
    def _turn(self) -> Generator[Pace | None]:
        recorder, is_call = self._recorder, self._api is not None
        try:
            if is_call and recorder.budget is not None and (spent := recorder.budget.spent) is not None:
                raise BudgetSpent(spent)  # noqa: TRY301 - it is undone as any failure to leave is
            # An app's requests to servers of its own may make others to the same one, and would wait for themselves.
            paced = recorder.paces is not None and (is_call or not is_loopback(self._asked.host))
            yield recorder.paces.of(self._url) if recorder.paces is not None and paced else None
            if is_call and recorder.budget is not None:
                recorder.budget.begin()
        except BaseException as error:
            self._withdraw(error)
            raise
        self._started = time.perf_counter()

    def _withdraw(self, error: BaseException) -> None:
        """The request never left, so it is no call."""
        self._end()
        if self._slot is not None:
            self._slot.failed()
        self._scope.numbers.give_back(self._asked.key, self._occurrence)
        if isinstance(error, BudgetSpent):
            self._scope.owner.on_refused(str(error))

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """The head of a live answer is there."""
        self._status = status
        self._headers = {name.lower(): value for name, value in headers.items()}
        if self._slot is not None:
            self._slot.answered(status, self._headers)
        self._streams = is_event_stream(self._headers.get("content-type", ""))

    def feed(self, chunk: bytes) -> None:
        """A chunk of the live body is there, unpacked; an answer is stored at its last event, before the app sees it."""
        if self._done:
            return
        self._chunks.append(chunk)
        if self._streams:
            *events, self._unended = (self._unended + chunk).replace(b"\r\n", b"\n").split(b"\n\n")
            if any(is_terminal(event) for event in events):
                self._finish(incomplete=False)

    def end(self) -> None:
        """The live body ended as it should."""
        if not self._done:
            self._finish(incomplete=False)

    def close(self) -> None:
        """The app closed the answer: a stream is stored as far as it was read, anything else is not stored."""
        if self._done:
            return
        if self._streams and self._chunks:
            self._finish(incomplete=True)
        else:
            self._abandon("the app closed the answer before it was read")

    def fail(self, error: BaseException) -> None:
        """The connection broke, or the app gave up waiting."""
        if self._slot is not None:
            self._slot.failed()
        if not self._done:
            self._billable = type(error).__name__ not in _NEVER_SENT
            self._abandon(f"{type(error).__name__}: {error}")

    def _end(self) -> None:
        self._done = True
        self._recorder.forget(self)

    def _abandon(self, error: str) -> None:
        self._end()
        self._scope.numbers.give_back(self._asked.key, self._occurrence)
        cost = (None, "there is no answer")
        self._tell(self._status, None, latency_s=time.perf_counter() - self._started, cost=cost, replayed=False, error=error)

    def _finish(self, *, incomplete: bool) -> None:
        self._end()
        latency_s = round(time.perf_counter() - self._started, 6)
        status = cast("int", self._status)
        recorder = self._recorder
        stores = recorder.mode in {"missing", "all", "rewrite"} and status not in NEVER_RECORDED and 200 <= status < 500
        try:
            body = encode_body(b"".join(self._chunks), self._headers.get("content-type", ""), recorder.redactor)
        except RecordingError as error:
            if stores:
                recorder.refuse(f"a call of {recorder.redact(self._scope.owner.test)} to {self._asked.url}: {error}")
            body, stores = {"text": REDACTED}, False
        cost = self._cost(status, body)
        if stores and not (self._streams and transient_error(body)):
            recorder.store(self._entry(body, latency_s=latency_s, cost=cost, incomplete=incomplete), self._asked.url)
        else:
            self._scope.numbers.give_back(self._asked.key, self._occurrence)
        self._tell(status, body, latency_s=latency_s, cost=cost, replayed=False)

    def _entry(self, body: dict[str, Any], *, latency_s: float, cost: tuple[float | None, str], incomplete: bool) -> Entry:
        headers = {name: self._recorder.redact(redact_query(value)) for name, value in kept_headers(self._headers).items()}
        return Entry(
            key=self._asked.key,
            test=self._scope.owner.test,
            trial=self._scope.owner.trial,
            occurrence=self._occurrence,
            at=_now(),
            request=self._asked.stored(),
            status=cast("int", self._status),
            headers=headers,
            body=body,
            incomplete=incomplete,
            latency_s=latency_s,
            cost_usd=cost[0],
            cost_reason=cost[1],
            role=self._role,
            module=self._scope.relative,
        )

    def _cost(self, status: int, body: Mapping[str, Any]) -> tuple[float | None, str]:
        api = self._api
        if api is None:
            return None, ""
        if status != 200:
            return None, f"the provider answered with status {status}"
        answer = answer_body(api, body)
        model = cast("dict[str, Any]", self._asked.json).get("model")
        return price(api, url=self._asked.url, host=self._asked.host, answer=answer, model=model if isinstance(model, str) else "")

    def _tell(
        self,
        status: int | None,
        body: Mapping[str, Any] | None,
        *,
        latency_s: float | None,
        cost: tuple[float | None, str],
        replayed: bool,
        error: str | None = None,
    ) -> None:
        api = self._api
        if api is None:
            return
        if not replayed and self._recorder.budget is not None:
            self._settle(self._recorder.budget, cost)
        text = None if error is None else self._recorder.redact(error)
        call = read_call(
            self._asked,
            api=api,
            role=self._role,
            status=status,
            body=body,
            latency_s=latency_s,
            cost=cost,
            replayed=replayed,
            error=text,
            host=urlsplit(self._url).netloc.rpartition("@")[2],
        )
        self._scope.owner.on_call(call)

    def _settle(self, budget: Budget, cost: tuple[float | None, str]) -> None:
        billable = self._billable and (self._status is None or self._status < 300)  # providers bill answers, not refusals
        model = cast("dict[str, Any]", self._asked.json).get("model")
        named = model if isinstance(model, str) else ""
        redact = self._recorder.redact
        budget.settle(cost[0] if billable else 0.0, model=redact(named), host=self._asked.host, reason=redact(cost[1]))

    def _truncated(self) -> RecordingMiss:
        return self._recorder.miss(
            self._scope,
            f"{self._scope.node} reads on where the app had closed the stream when it was recorded "
            f"({self._asked.method} {self._asked.url}); {self._scope.record_again}",
        )


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
