"""What identifies a run: its content."""

import ast
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cifar_lightning

PACKAGE = Path(cifar_lightning.__file__).parent
# What decides the figures of a run; not what watches it or speaks of it.
DECIDING = ("data/*.py", "models/*.py", "seeds.py", "callbacks/seeding.py")
# Told apart by something else, or of the machine: a run that goes on elsewhere stays the same run, though its last bits
# differ and the precision may; each record says what it ran on.
NOT_CONTENT = ("data.root", "data.source", "data.num_workers", "data.mirrors", "trainer.accelerator", "seed_everything")


def content_address(settings: Mapping[str, Any], epochs: int, seed: int, source: str, code: str) -> str:
    """What identifies a run.

    Args:
        settings: All that is set, dotted.
        epochs: How many it has.
        seed: Of the run.
        source: Where the images come from. What they are is then certain: the official files are verified by their
            published checksums, the stand-in is made by the code.
        code: Its version.
    """
    content = {key: value for key, value in settings.items() if key not in NOT_CONTENT}
    content["trainer.max_epochs"] = epochs
    if _is_no_limit(settings):
        del content["trainer.limit_train_batches"]
    return _digest(canonical({**content, "seed": seed, "source": source, "code": code}).encode())


def canonical(settings: Mapping[str, Any]) -> str:
    """Settings as text, the same for the same settings."""
    # Where a Trainer takes both, 1 is a number of batches and 1.0 all of them; elsewhere they are one setting.
    plain = {key: value if key.startswith("trainer.") else _plain(value) for key, value in settings.items()}
    return json.dumps(plain, sort_keys=True)


def code_version(package: Path = PACKAGE) -> str:
    """A hash of the code that decides a run's figures, comments and docstrings left out.

    Another version of Python may read the same code as another one.
    """
    trees = [ast.parse(file.read_bytes()) for pattern in DECIDING for file in sorted(package.glob(pattern))]
    return _digest("\n".join(ast.dump(_WithoutText().visit(tree)) for tree in trees).encode())


class _WithoutText(ast.NodeTransformer):
    """Takes docstrings out: a constant that stands alone does nothing."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if isinstance(node.value, ast.Constant) else node


def _is_no_limit(settings: Mapping[str, Any]) -> bool:
    """Whether an epoch is limited to at least as many batches as it has."""
    limit, batch = settings.get("trainer.limit_train_batches"), settings.get("data.batch_size", 100)
    left_out, images = settings.get("data.val_size", 10_000), settings.get("data.train_size")
    if not all(isinstance(each, int) for each in (limit, batch, left_out, images or 0)) or batch < 1:
        return False  # what can't be is for `fit` to refuse
    return bool(limit >= -(-(images or 50_000 - left_out) // batch))


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
