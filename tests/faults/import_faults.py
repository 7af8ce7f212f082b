"""Names of code that a configuration may not have imported, looked up or called."""

import sys

from tests.faults.table import FIT, Fault, Place

# Their import is what must never happen.
EVIL = ("evil_callbacks.py", "lightning_evil.py", "cifar_lightning_evil.py", "packages/pytorch_evil.py")
CONTENT = """\
open("CANARY", "w").close()
from lightning.pytorch import Callback

class X(Callback):
    pass
"""


def evil_modules(place: Place) -> None:
    """Modules in the working folder, which Python searches, and one that looks as if it were Lightning's."""
    import lightning

    for name in EVIL:
        place.write(name, CONTENT)
    place.patch.syspath_prepend(str(place.folder))
    place.patch.setattr(lightning, "__path__", [*lightning.__path__, str(place.folder / "packages")])
    place.patch.setattr(sys, "dont_write_bytecode", True)
    for name in EVIL:
        module = name.rpartition("/")[2].removesuffix(".py")
        place.stack.callback(sys.modules.pop, module, None)
        place.stack.callback(sys.modules.pop, f"lightning.{module}", None)


def section(key: str, class_path: str, init_args: str = "{}") -> str:
    """A file that names a class."""
    value = f"{{class_path: {class_path}, init_args: {init_args}}}"
    value = f"[{value}]" if key in ("callbacks", "plugins") else value
    return f"{key}: {value}\n" if key == "model" else f"trainer:\n  {key}: {value}\n"


def in_file(key: str, class_path: str, init_args: str = "{}") -> Fault:
    """A class named in a file."""

    def make(place: Place) -> None:
        evil_modules(place)
        place.write("a.yaml", section(key, class_path, init_args))

    return Fault(f"class in a file: {key} {class_path} {init_args}", f"{FIT} --config=a.yaml", 2, (key,), make)


def in_flag(key: str, class_path: str) -> Fault:
    """A class named in a flag."""
    name = key if key == "model" else f"trainer.{key}"
    return Fault(f"class in a flag: {name} {class_path}", f"{FIT} --{name}={class_path}", 2, (key,), evil_modules)


TOUCH = "{args: [touch, CANARY]}"
# Reached through a module of Lightning's that imports it.
INNER = "lightning.pytorch.strategies.launchers.subprocess_script.subprocess.Popen"
LAMBDA = "lightning.pytorch.callbacks.LambdaCallback"
POPEN = "{on_fit_start: {class_path: %s, init_args: {args: [touch, CANARY]}}}"

FAULTS = [
    in_flag("model", "os.system"),
    in_flag("model", "evil_callbacks.X"),
    in_flag("model", "builtins.eval"),
    in_flag("model", "lightning.pytorch.LightningModule"),
    in_flag("callbacks", "os.system"),
    in_flag("callbacks", "evil_callbacks.X"),
    in_flag("callbacks", "lightning.pytorch_evil.X"),
    in_flag("logger", "evil_callbacks.X"),
    in_flag("profiler", "evil_callbacks.X"),
    in_flag("strategy", "evil_callbacks.X"),
    in_flag("plugins", "evil_callbacks.X"),
    in_flag("accelerator", "evil_callbacks.X"),
    in_file("model", "subprocess.Popen", TOUCH),
    in_file("model", "evil_callbacks.X"),
    in_file("model", INNER, TOUCH),
    in_file("callbacks", "evil_callbacks.X"),
    in_file("callbacks", "subprocess.Popen", TOUCH),
    in_file("callbacks", "builtins.exec", '{source: \'open("CANARY", "w")\'}'),
    in_file("callbacks", "lightning_evil.X"),
    in_file("callbacks", "lightning.pytorch_evil.X"),
    in_file("callbacks", "cifar_lightning_evil.X"),
    in_file("callbacks", "cifar_lightning.utils.files.os.system", "{command: touch CANARY}"),
    in_file("callbacks", INNER, TOUCH),
    in_file("callbacks", LAMBDA, "{on_fit_start: os.system}"),
    in_file("callbacks", LAMBDA, "{on_fit_start: builtins.exec}"),
    in_file("callbacks", LAMBDA, "{on_fit_start: evil_callbacks.X}"),
    in_file("callbacks", LAMBDA, "{on_fit_start: lightning.pytorch.trainer.trainer.os.abort}"),
    in_file("callbacks", LAMBDA, POPEN % "subprocess.Popen"),
    in_file("callbacks", LAMBDA, POPEN % INNER),
    in_file("logger", "evil_callbacks.X"),
    in_file("logger", "subprocess.Popen", TOUCH),
    in_file("plugins", "evil_callbacks.X"),
    in_file("plugins", "subprocess.Popen", TOUCH),
    in_file("strategy", "evil_callbacks.X"),
    in_file("strategy", INNER, TOUCH),
    in_file("profiler", "evil_callbacks.X"),
    in_file("profiler", "subprocess.Popen", TOUCH),
]
