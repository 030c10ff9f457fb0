"""Output, log records and warnings of a test body, kept apart from those of the bodies beside it.

Which body writes is told by a context variable, which travels into the threads and tasks that a body starts.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pytest

    Current = Callable[[], "Streams | None"]

_PYTEST_HANDLERS = ("report_handler", "log_cli_handler", "log_file_handler")


class Streams:
    """What one body wrote, logged and warned of."""

    def __init__(self) -> None:
        """Hold nothing; most bodies write nothing."""
        self.records: list[logging.LogRecord] = []
        self.warnings: list[Any] = []
        self._texts: dict[str, io.TextIOWrapper] = {}
        self._warned: set[tuple[object, ...]] = set()

    def warn(self, message: warnings.WarningMessage) -> None:
        """Keep a warning of the body, but one that is shown once for each place only once."""
        place = (message.category, str(message.message), message.filename, message.lineno)
        if place not in self._warned or _is_shown_always(message):
            self.warnings.append(message)
        self._warned.add(place)

    def file(self, name: str) -> io.TextIOWrapper:
        """Where the body's `stdout` or `stderr` goes."""
        if name not in self._texts:
            self._texts.setdefault(name, io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace", write_through=True))
        return self._texts[name]

    def text(self, name: str) -> str:
        """What the body wrote to `stdout` or `stderr`."""
        if name not in self._texts:
            return ""
        buffer = self._texts[name].buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue().decode("utf-8", "replace")


class _Routed:
    """A text stream that writes to the current body's file, or through to the stream it stands for."""

    def __init__(self, name: str, through: Any, current: Current) -> None:  # noqa: ANN401 - any text stream
        self._name = name
        self.through = through
        self._current = current

    def _kind(self) -> Any:  # noqa: ANN401 - a class
        return cast("Any", type(self.through))

    # pytest and applications ask what kind of stream it is.
    __class__ = cast("Any", property(_kind))  # pyright: ignore[reportIncompatibleMethodOverride]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the stream has
        return getattr(self._target(), name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._target())

    def __enter__(self) -> Any:  # noqa: ANN401 - as above
        return self._target().__enter__()

    def __exit__(self, *error: object) -> None:
        self._target().__exit__(*error)

    def write(self, text: str) -> int:
        """Write where this belongs."""
        written: int = self._target().write(text)
        return written

    def _target(self) -> Any:  # noqa: ANN401 - as above
        streams = self._current()
        return self.through if streams is None else streams.file(self._name)


class _Records(logging.Handler):
    """Keeps the log records of bodies, and keeps them out of pytest's own handlers, which belong to the test whose turn it is."""

    def __init__(self, current: Current) -> None:
        super().__init__()
        self._current = current

    def emit(self, record: logging.LogRecord) -> None:
        streams = self._current()
        if streams is not None:
            streams.records.append(record)

    def from_main(self, _: logging.LogRecord) -> bool:
        return self._current() is None


class Router:
    """Sends what bodies write, log and warn of to their own streams, from `start` to `stop`."""

    def __init__(self, config: pytest.Config, current: Current) -> None:
        """Change nothing yet; `current` gives the streams of the body that is running here, None outside of bodies."""
        self._config = config
        self._current = current
        self._undo = contextlib.ExitStack()

    def start(self) -> None:
        """Route."""
        self._route_output()
        self._route_records()
        self._route_warnings()

    def stop(self) -> None:
        """Put everything back."""
        self._undo.close()

    def replay(self, streams: Streams, item: pytest.Item) -> None:
        """Give pytest what a body left, now that its test's turn has come; called inside the test's call phase."""
        for name in ("stdout", "stderr"):
            item.add_report_section("call", name, streams.text(name))
        handlers = list(self._pytest_handlers()) if streams.records else []
        for record in streams.records:
            for handler in handlers:
                if record.levelno >= handler.level:
                    handler.handle(record)
        for message in streams.warnings:
            self._show_warning(message)

    def _route_output(self) -> None:
        for holder, attribute, name in self._places():
            setattr(holder, attribute, _Routed(name, getattr(holder, attribute), self._current))
            self._undo.callback(_put_through, holder, attribute)

    def _places(self) -> Iterator[tuple[Any, str, str]]:
        """Where pytest's capturing takes what it sets as `sys.stdout` and `sys.stderr`, and these themselves."""
        capture: Any = self._config.pluginmanager.get_plugin("capturemanager")
        captured: Any = getattr(capture, "_global_capturing", None)
        for name, part in (("stdout", "out"), ("stderr", "err")):
            per_stream = getattr(captured, part, None)
            holder = getattr(per_stream, "syscapture", per_stream)
            for attribute in ("_old", "tmpfile"):
                if hasattr(holder, attribute):
                    yield holder, attribute, name
            yield sys, name, name

    def _route_records(self) -> None:
        keeper = _Records(self._current)
        root = logging.getLogger()
        root.addHandler(keeper)
        self._undo.callback(root.removeHandler, keeper)
        for handler in self._pytest_handlers():
            handler.addFilter(keeper.from_main)
            self._undo.callback(handler.removeFilter, keeper.from_main)
        level = getattr(self._config.pluginmanager.get_plugin("logging-plugin"), "log_level", None)
        if level is not None and level < root.level:
            # As pytest does while a test runs; bodies run between its tests as well.
            self._undo.callback(root.setLevel, root.level)
            root.setLevel(level)

    def _pytest_handlers(self) -> Iterable[logging.Handler]:
        plugin: Any = self._config.pluginmanager.get_plugin("logging-plugin")
        handlers = (getattr(plugin, name, None) for name in _PYTEST_HANDLERS)
        return [handler for handler in handlers if isinstance(handler, logging.Handler)]

    def _route_warnings(self) -> None:
        module: Any = warnings
        original = getattr(module, "_showwarnmsg", None)
        forget_shown = getattr(module, "_filters_mutated", lambda: None)
        if original is None:
            return

        def show(message: Any) -> None:  # noqa: ANN401 - a WarningMessage
            streams = self._current()
            if streams is None:
                original(message)
                return
            streams.warn(message)
            # Python shows most warnings once for each place until the filters change, as they do from test to test: another body's
            # warning from the same place is not to be lost.
            forget_shown()

        module._showwarnmsg = show  # noqa: SLF001 - the one place that every warning passes
        self._undo.callback(setattr, module, "_showwarnmsg", original)

    def _show_warning(self, message: Any) -> None:  # noqa: ANN401 - as above
        module: Any = warnings
        module._showwarnmsg(message)  # noqa: SLF001 - as above


def _is_shown_always(message: warnings.WarningMessage) -> bool:
    """Whether the filters have every warning of this kind shown, however often it comes from one place."""
    for action, text, category, _, lineno in warnings.filters:
        if issubclass(message.category, category) and lineno in (0, message.lineno) and (text is None or text.match(str(message.message))):
            return action == "always"
    return False


def _put_through(holder: Any, attribute: str) -> None:  # noqa: ANN401 - a capture of pytest's, or sys
    # Meanwhile pytest may have set `sys.stdout` to another routed stream, or have closed the capture.
    stream = getattr(holder, attribute, None)
    if type(stream) is _Routed:
        setattr(holder, attribute, stream.through)
