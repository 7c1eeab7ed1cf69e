"""What Invoke's parser lacks, which Fabric shares: words that may be left out, and plain errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from invoke.exceptions import ParseError
from invoke.parser import parser
from invoke.parser.argument import Argument
from invoke.parser.context import to_flag
from invoke.program import Program

WANTED = {int: "a whole number", float: "a number"}
SHOWN = 40  # characters of a wrong value that are shown

parse_tasks = Program.parse_tasks


class Machine(parser.ParseMachine):
    """Reads a command line word by word.

    To Invoke a positional argument is always a required one, and a word behind a task that
    takes none is the next task: `inv logs deploy` would deploy. Here one that is declared
    positional and has a default takes the next word, and is not missing when there is none.
    """

    def handle(self, token: str) -> None:
        """Read the next word."""
        argument = self._vacant(token)
        if argument is None:
            super().handle(token)
        else:
            argument.value = token

    def see_value(self, value: Any) -> None:
        """Take a word as the value of the flag before it."""
        try:
            super().see_value(value)
        except ValueError:
            flag: Any = self.flag
            wanted = WANTED.get(flag.kind, flag.kind.__name__)
            self.error(f"{to_flag(flag.name)} must be {wanted}, not {value[:SHOWN]!r}")

    def see_positional_arg(self, value: Any) -> None:
        """Take a word for an argument that must be there; Invoke would take a flag as well."""
        if not parser.is_flag(value):
            super().see_positional_arg(value)
        elif value in ("-h", "--help"):
            self.initial.flags["--help"].value = self.context.name
            for argument in self.context.missing_positional_args:
                argument.value = ""  # nobody runs it, and help must not ask for it
        else:
            self.error(f"No idea what {value!r} is!")

    def _vacant(self, token: str) -> Argument | None:
        """Return the argument that a word is for by its place, if there is one."""
        if self.current_state != "context" or parser.is_flag(token) or self.waiting_for_flag_value:
            return None
        places = self.context.positional_args if self.context else []
        return next((item for item in places if not item.got_value), None)


# The metaclass gives each class states of its own, and a subclass none at all.
Machine._class_states = parser.ParseMachine._class_states  # noqa: SLF001
Machine._class_transitions = parser.ParseMachine._class_transitions  # noqa: SLF001


def adapt(refuse: Callable[[str], NoReturn]) -> None:
    """Have the program that is running read its tasks our way.

    Args:
        refuse: Called with what is wrong about the command line. Invoke would end with 1,
            which means failed tests.
    """

    def parse(self: Program) -> None:
        try:
            parse_tasks(self)
        except ParseError as error:
            refuse(str(error))

    vars(parser)["ParseMachine"] = Machine
    Program.parse_tasks = parse  # type: ignore[method-assign]
