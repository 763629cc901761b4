"""Loaded into each kernel of the code interpreter: a kernel that ran in a template becomes its sandbox's own.

Before the first code in a copy the random number generators get new seeds, and the sandbox's variables are set, which
the copy's hook has written down.
"""

import os
import random
import sys

MACHINE = "/etc/machine-id"
VARIABLES = "/run/code-interpreter.env"
# They are the hook's own, not the sandbox's.
OF_HOOK = {"HOME", "LOGNAME", "OLDPWD", "PATH", "PWD", "SHELL", "SHLVL", "USER", "_"}


def machine_id():
    with open(MACHINE) as file:
        return file.read()


def sandbox_variables():
    try:
        with open(VARIABLES) as file:
            pairs = [line.split("=", 1) for line in file.read().split("\0") if "=" in line]
    except OSError:
        return {}
    return {name: text for name, text in pairs if name not in OF_HOOK and not name.startswith("BHATTI_")}


class CodeInterpreter:
    def __init__(self):
        self.machine = machine_id()
        self.before = {}

    def renew(self):
        machine = machine_id()
        if machine == self.machine:
            return
        self.machine = machine
        random.seed()
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed()
        os.environ.update(sandbox_variables())

    def enter(self, variables):
        """Variables of one execution."""
        self.before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)

    def leave(self):
        for name, text in self.before.items():
            if text is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = text


def load_ipython_extension(shell):
    shell.code_interpreter = CodeInterpreter()
    shell.events.register("pre_execute", shell.code_interpreter.renew)
