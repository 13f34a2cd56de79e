"""The command `proxima`: one module a command, each with `register(app)`, found by being here.

    proxima tail failover-rankings      what is said about whom
    proxima watch eu-west-1             the same, for people

A module here defines `register(app: typer.Typer) -> None` and imports what its command needs inside the command: all
of them are imported for every `--help`, and numpy, Kafka's client and pydantic together take a second to load.
Names with a leading underscore are shared helpers. Commands raise `ProximaError`, or `typer.Exit(1)` when what they
print is itself the bad news; `main` makes it one line on stderr and an exit code: 1 failed, 2 wrong usage, 130 Ctrl-C,
143 SIGTERM (services take that signal themselves, and end with 0).
"""

from __future__ import annotations

import logging
import pkgutil
import signal
import sys
from importlib import import_module
from typing import NoReturn

import typer

from schemas.errors import ConfigError, ProximaError

FAILED = 1
INTERRUPTED = 130
TERMINATED = 143

_ABOUT = """If a region failed now, where should its traffic go? Proxima answers that all the time, for every region.

\b
Examples:
  proxima demo                            the whole pipeline on this machine
  proxima doctor                          what is missing here, and what to do
  proxima tail failover-rankings          decisions as JSON lines
  proxima COMMAND --help                  every command has an example
"""


def make_app() -> typer.Typer:
    """The application with every command that is here."""
    # Plain help: it can be piped and searched, and rich's boxes would double the time that it takes.
    app = typer.Typer(
        name="proxima",
        help=_ABOUT,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )

    # A callback, so that it stays a group of commands even while there is only one.
    @app.callback()
    def proxima() -> None:
        pass

    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            import_module(f"{__name__}.{module.name}").register(app)
    return app


def main() -> NoReturn:
    """Run the command line of this process, and end it."""
    # As an exception, so that files are closed and children ended on the way out.
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has it ignored
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(TERMINATED))
    try:
        make_app()(prog_name="proxima")
    except ProximaError as error:
        _say_last(_told(error))
    except OSError as error:
        # A file that cannot be written, a full disk: somebody's to mend, and no bug of ours to trace.
        _say_last(str(error))
    except KeyboardInterrupt:  # before Typer took over, which exits with the same
        sys.exit(INTERRUPTED)
    sys.exit(FAILED)


def _say_last(text: str) -> None:
    """Why it ends; as an object where the log is made of them."""
    logs = sys.modules.get("schemas.logs")  # not loaded: nothing was logged
    if logs is not None and logs.in_json():
        logging.getLogger("proxima").critical(text)
    else:
        sys.stderr.write(f"proxima: {text}\n")


def _told(error: ProximaError) -> str:
    """An error as a person reads it: of several mistakes, the place comes first."""
    if isinstance(error, ConfigError) and len(error.mistakes) > 1:
        listed = "".join(f"\n  {mistake}" for mistake in error.mistakes)
        return f"{error.where}: {len(error.mistakes)} mistakes{f' ({error.do})' if error.do else ''}:{listed}"
    return str(error)
