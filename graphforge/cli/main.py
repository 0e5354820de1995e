"""The `graphforge` command: finds the verb, runs it, and turns every outcome into a message and an exit code.

Exit codes: 0 done, 1 a `GraphForgeError` (a mistake or a limit, told without a traceback), 2 a malformed command
line, 3 a bug of ours (traceback and how to reproduce it), 130 interrupted, 143 ended by SIGTERM.  Nothing else here
ends the process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click

import graphforge
from graphforge.cli.console import print_error, print_json
from graphforge.cli.flags import flag
from graphforge.errors import GraphForgeError, InternalError, UsageError

__all__ = ["cli", "main"]

# verb -> module; the order is the order of the help page
_VERBS = (
    "compile",
    "optimize",
    "targets",
    "run",
    "pipeline",
    "inspect",
    "passes",
    "diff",
    "bisect",
    "reduce",
    "explain",
    "opset",
    "lint",
    "profile",
    "evaluate",
    "report",
    "presets",
    "publish",
    "doctor",
)
_INTERRUPTED = 130
_BUG = 3


class _LazyGroup(click.Group):
    """Imports a verb's file when the verb is asked for, so that a command pays only for itself."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command = import_module(f"graphforge.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _VERBS and not args[0].startswith("-"):
            raise _unknown_verb(args[0])
        return super().resolve_command(ctx, args)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(graphforge.__version__, "-V", "--version", prog_name="graphforge")
def cli() -> None:
    """Compile PyTorch models to verified ONNX, TensorRT, OpenVINO and MagicMind models.

    \b
    Examples:
      graphforge compile torchvision:resnet50 --input 'x:1x3x224x224' --dynamic 'x:0=1..8' -o out/resnet50
      graphforge compile model.py:build --input 'x:1x3x64x64' -o out/mine
      graphforge inspect out/mine/model.onnx
      graphforge doctor

    Every result is compared with the eager model before it is called done.  `graphforge VERB --help` tells more.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process.

    Given arguments, it is a program that calls: its process is not ours to fork, and the command runs in it.
    """
    from graphforge.cli.supervisor import supervised

    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us: `>&-`
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    sys.exit(supervised(run, sys.argv[1:]) if arguments is None else run(arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; its exit code."""
    as_json = "--json" in arguments
    try:
        outcome = cli.main(args=list(arguments) or ["--help"], prog_name="graphforge", standalone_mode=False)
        sys.stdout.flush()
    except GraphForgeError as error:
        return _refuse(error, as_json)
    except click.ClickException as error:
        return _refuse(_usage_error_from_click(error), as_json)
    except SystemExit as error:  # we raise none: a sys.exit() in the user's code must not pass for success
        from graphforge.user_code import user_error

        return _refuse(user_error("the run was ended from within", error), as_json)
    except (KeyboardInterrupt, click.Abort) as ended:
        code = getattr(ended.__cause__ or ended, "signal_code", _INTERRUPTED)  # click wraps it
        what = "interrupted" if code == _INTERRUPTED else "ended from outside"
        return _refuse(GraphForgeError(what, "nothing was left half-written"), as_json, code)
    except (MemoryError, RecursionError) as error:
        return _refuse(_error_from_limits(error), as_json)
    except BrokenPipeError:
        # the reader of our output went away (`| head`): point stdout at nothing so that the exit flush stays quiet
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.filename is None and error.errno != errno.ENOSPC:
            return _report_bug(error, arguments)
        return _refuse(_error_from_os(error), as_json)
    except Exception as error:
        return _report_bug(error, arguments)
    return outcome if isinstance(outcome, int) else 0


def _refuse(error: GraphForgeError, as_json: bool, code: int | None = None) -> int:
    code = error.exit_code if code is None else code
    from graphforge.hushed import in_a_screen

    message, *notes = in_a_screen(error.told(flag))
    print_error(message, notes)
    if as_json:
        with contextlib.suppress(OSError):  # a full disk, or a reader that went away; stderr has it all
            print_json({"error": {"message": message, "notes": notes, "exit_code": code}})
    return code


def _report_bug(error: Exception, arguments: Sequence[str]) -> int:
    """The one place that shows a traceback."""
    import shlex
    import traceback

    traceback.print_exception(error, file=sys.stderr)
    notes = [str(note) for note in getattr(error, "__notes__", ())]
    if not isinstance(error, InternalError):
        notes.append("this is a bug in graphforge, not your mistake")
    notes.append(f"when reporting it, add the traceback above and: {shlex.join(['graphforge', *arguments])}")
    notes.append("and what `graphforge doctor` prints")
    message = f"internal error: {type(error).__name__}: {error}"
    print_error(message, notes)
    if "--json" in arguments:
        print_json({"error": {"message": message, "notes": notes, "exit_code": _BUG}})
    return _BUG


def _unknown_verb(name: str) -> UsageError:
    import difflib

    close = difflib.get_close_matches(name, _VERBS, n=1)
    return UsageError(
        f"no such command {name!r}",
        f"did you mean `graphforge {close[0]}`?" if close else "",
        f"the commands are: {', '.join(_VERBS)}",
    )


def _usage_error_from_click(error: click.ClickException) -> UsageError:
    """Click's complaint in our words: lower-case start, no full stop, a way out."""
    text = error.format_message().rstrip(".")
    head, *rest = (part.strip(" ()") for part in text.split(". "))
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context is not None else "graphforge"
    return UsageError(*(part[:1].lower() + part[1:] for part in (head, *rest)), f"see `{path} --help`")


def _error_from_limits(error: MemoryError | RecursionError) -> GraphForgeError:
    """What was asked for is too large for this machine, or nested too deeply for Python; or the user's code is."""
    from graphforge.user_code import raised_by_user, user_error

    if raised_by_user(error):
        return user_error("the model's own code ran into a limit", error)
    if isinstance(error, MemoryError):
        return GraphForgeError(
            f"there is not enough memory: {error}" if str(error) else "there is not enough memory",
            "use smaller inputs or sizes, or a machine with more of it",
        )
    return GraphForgeError("the model is nested too deeply", "modules, bodies or arguments lie too deep inside others")


def _error_from_os(error: OSError) -> GraphForgeError:
    """The operating system refused a file: said with the file's name."""
    what = (error.strerror or str(error)).lower()
    message = f"{error.filename}: {what}" if error.filename is not None else what
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return GraphForgeError(message, "free some space or choose another folder with -o DIR")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return GraphForgeError(message, "check the permissions or choose another folder with -o DIR")
    return GraphForgeError(message, "check that the path exists and is what the command expects")
