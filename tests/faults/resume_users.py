"""Ways to start: SLURM jobs, a person's own checkpoints, fine-tuning; titles name the issues."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import yaml

from cifar_lightning.__main__ import main
from cifar_lightning.runs.checkpoint import load
from tests.faults.checkpoint_faults import altered
from tests.faults.processes import MODEL, at_call, send
from tests.faults.steps import content, gone, is_whole, new_resumes
from tests.faults.table import BEST, FIT, LAST, NEW, NEW_RUN, OLD_RUN, RESUME, RUN, SMALL, WHOLE, Fault, Table

SCONTROL, REQUEUED = Path("bin/scontrol"), Path("requeued")
JOB = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train"}
JOB |= dict.fromkeys(("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"), "0")
ARRAY: dict[str, Any] = {"SLURM_ARRAY_JOB_ID": "6", "SLURM_ARRAY_TASK_ID": "3"}
STEP = f"{MODEL}.training_step"


def enter_job(**changes: str) -> None:
    """Be a task of a SLURM job, whose `scontrol` writes down what it is asked."""
    SCONTROL.parent.mkdir(exist_ok=True)
    SCONTROL.write_text(f'#!/bin/sh\necho "$@" >> {REQUEUED.absolute()}\n')
    SCONTROL.chmod(0o755)
    os.environ.update({**JOB, **changes, "PATH": f"{SCONTROL.parent.absolute()}:{os.environ['PATH']}"})


@contextmanager
def job(**changes: str) -> Iterator[None]:
    with patch.dict(os.environ):
        enter_job(**changes)
        yield


def told(*befores: Callable[[], object], signum: int = signal.SIGUSR1, **changes: Any) -> None:
    """Be in a job, and get a signal at a training step."""
    enter_job(**changes)
    for before in befores:
        before()
    at_call(STEP, partial(send, signum), 2)


def in_job(title: str, command: str, status: int, *says: str, child: Any = None, **more: Any) -> Fault:
    changes = (*NEW_RUN, "bin", "bin/*", "requeued")
    return Fault(f"SLURM: {title}", command, status, says, changes=changes, child=child, **more)


def requeued(name: str = "7", **changes: str) -> Callable[[], None]:
    """Assert that a job was requeued, and that there the same command ends the run as if nothing had been."""

    def then() -> None:
        assert REQUEUED.read_text() == f"requeue {name}\n"
        assert not [*Path().rglob("hpc_ckpt*")]
        with job(**changes):
            assert main(FIT.split()) == 0
        assert json.loads(Path(f"{NEW}/slurm_job.json").read_bytes())["job"] == name
        assert not Path(NEW).with_name("version_2").exists()
        gone(Path(f"{NEW}/slurm_job.json"))
        is_whole(NEW)

    return then


def asked(commands: str) -> None:
    assert (REQUEUED.read_text() if REQUEUED.exists() else "") == commands


def not_requeued() -> None:
    asked("")
    gone(Path(f"{NEW}/slurm_job.json"))
    new_resumes()


def other_job_is_new() -> None:
    """Assert that neither another job nor another command in this one touches the run."""
    before = {path: path.read_bytes() for path in Path(NEW).rglob("*") if path.is_file()}
    others = [(FIT, {"SLURM_JOB_ID": "8"}), (f"{FIT} --model.lr=1", {}), (FIT, ARRAY)]
    for number, (command, changes) in enumerate(others):
        with job(**changes):
            assert main(command.split()) == 0
        assert Path(NEW).with_name(f"version_{number + 2}").is_dir()
    assert {path: path.read_bytes() for path in Path(NEW).rglob("*") if path.is_file()} == before


def done_job_repeats_nothing() -> None:
    before = {path: path.read_bytes() for path in Path(NEW).rglob("*") if path.is_file()}
    with job():
        assert main(FIT.split()) == 0
    assert {path: path.read_bytes() for path in Path(NEW).rglob("*") if path.is_file()} == before
    gone(Path(f"{NEW}/slurm_job.json"))
    is_whole(NEW)


def copied(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    shutil.copy(LAST, path)


ENVIRONMENT = "--trainer.plugins=lightning.pytorch.plugins.environments.SLURMEnvironment --trainer.plugins"
HPC, NAME = "hpc_ckpt_1.ckpt", Path(NEW).parent.name
THERE = "there/on_exception.ckpt"
ON_EXCEPTION = "--trainer.callbacks+=OnExceptionCheckpoint --trainer.callbacks.dirpath=there"
SLURM: list[Fault] = [
    in_job("SIGUSR1 saves and requeues (pytorch-lightning#20347)", FIT, 138, "requeued", "fit --resume",
           child=told, then=requeued()),
    in_job("before the first step", FIT, 138, "requeued", then=requeued(),
           child=partial(told, partial(at_call, f"{MODEL}.setup", partial(send, signal.SIGUSR1)))),
    in_job("a task of an array", FIT, 138, child=partial(told, **ARRAY), then=requeued("6_3", **ARRAY)),
    in_job("a signal of one's own", f"{FIT} {ENVIRONMENT}.requeue_signal=SIGUSR2", 128 + signal.SIGUSR2,
           child=partial(told, signum=signal.SIGUSR2), then=lambda: asked("requeue 7\n")),
    in_job("SIGTERM only saves", FIT, 143, child=partial(told, signum=signal.SIGTERM), then=not_requeued),
    in_job("requeueing turned off", f"{FIT} {ENVIRONMENT}.auto_requeue=false", 138, "fit --resume", child=told,
           then=lambda: asked("")),
    in_job("an interactive job", FIT, 138, child=partial(told, SLURM_JOB_NAME="interactive"), then=lambda: asked("")),
    in_job("no scontrol", FIT, 138, "SLURM job 7 was not requeued",
           child=partial(told, partial(gone, SCONTROL)), then=not_requeued),
    in_job("several tasks", FIT, 2, "SLURM_NTASKS", "--ntasks-per-node", make=partial(job, SLURM_NTASKS="2")),
    in_job("more tasks than devices", FIT, 2, "SLURM_NTASKS: 2", "trainer.devices",
           make=partial(job, SLURM_NTASKS="2", SLURM_NTASKS_PER_NODE="2")),
    in_job("tasks of one node for two", f"{FIT} --trainer.num_nodes=2", 2, "trainer.devices", "`devices=2`",
           make=partial(job, SLURM_NTASKS="2", SLURM_NTASKS_PER_NODE="2")),
    Fault("SLURM: test by too many tasks", f"test --ckpt_path={RUN}", 2, ("error: SLURM_NTASKS: 2",),
          make=partial(job, SLURM_NTASKS="2", SLURM_NTASKS_PER_NODE="2"), changes=("bin", "bin/*")),
    in_job("other jobs of one folder (#12369)", FIT, 0, make=job, then=other_job_is_new),
    in_job("a job that is done", FIT, 0, make=job, then=done_job_repeats_nothing),
    in_job("another program's checkpoint (#20542)", FIT, 0, files={HPC: copied}, make=job,
           then=done_job_repeats_nothing),
    in_job("such a checkpoint where Lightning looks", FIT, 2, HPC, "--init_from", files={f"logs/{NAME}/{HPC}": copied},
           make=job),
    Fault("OnExceptionCheckpoint of another run", f"{FIT} {ON_EXCEPTION}", 2, (THERE, "--init_from"), {THERE: copied}),
    Fault("OnExceptionCheckpoint", f"{FIT} {ON_EXCEPTION}", 143, (), changes=(*NEW_RUN, "there", THERE),
          child=partial(at_call, STEP, partial(send, signal.SIGTERM), 2)),
    # Warnings are errors here: Lightning's, of a checkpoint to resume from that nobody asked for, is none.
    Fault("OnExceptionCheckpoint and no exception", f"{FIT} {ON_EXCEPTION}", 0, changes=NEW_RUN),
    Fault("SIGUSR1 outside of SLURM", FIT, 138, ("fit --resume",), changes=NEW_RUN, then=new_resumes,
          child=partial(at_call, STEP, partial(send, signal.SIGUSR1), 2)),
]  # fmt: skip


INIT = f"{FIT} --init_from={BEST}"


def starts_from_weights(name: str = BEST) -> None:
    """Assert that a run at almost no learning rate has the weights it started from, and says so."""
    weights, there = load(Path(f"{NEW}/checkpoints/last.ckpt"))["state_dict"], load(Path(name))["state_dict"]
    assert all(torch.allclose(weights[key], there[key]) for key in there if "weight" in key and "fc" in key)
    assert yaml.safe_load(Path(f"{NEW}/config.yaml").read_text())["init_from"] == name


def starts_again() -> None:
    """Assert that a run that was stopped before any checkpoint starts from the weights again, to the same bits."""
    assert main([*INIT.split(), "--name=whole"]) == 0
    gone(Path(f"{NEW}/checkpoints"))
    gone(Path(f"{NEW}/metrics.csv"))
    assert main(["fit", f"--resume={NEW}"]) == 0
    (a, b) = (load(path) for path in Path("logs").glob("*/*/checkpoints/last.ckpt") if f"{path}" != LAST)
    assert all(torch.equal(a["state_dict"][key], b["state_dict"][key]) for key in a["state_dict"])


SLASH, ELSEWHERE = f"{RUN}/checkpoints/epoch=0-val/acc=0.1.ckpt", "elsewhere/x.ckpt"
TEST = (f"{RUN}/test.json", f"{RUN}/events.*")
OF_NAME = f"--name=mlp --model=MLP --model.width=8 {SMALL}"


PLACES: list[Fault] = [
    Fault("fit from a checkpoint under another name (#18524)", f"{FIT} --ckpt_path={LAST} --name=tuned", 2,
          (LAST, f"--resume {RUN}", f"--init_from {LAST}")),
    Fault("fit from a checkpoint alone", f"fit --ckpt_path={BEST} --trainer.max_epochs=3", 2, (f"--resume {RUN}",)),
    Fault("fit from a run", f"fit --ckpt_path={RUN}", 2, (f"--resume {RUN}", f"--init_from {RUN}")),
    Fault("fit from a copy", "fit --ckpt_path=x.ckpt", 2, ("--resume RUN", "--init_from x.ckpt"), {"x.ckpt": copied}),
    Fault("init_from a checkpoint", f"{INIT} --model.lr=1e-12", 0, ("starts a new run from its weights",),
          changes=NEW_RUN, then=starts_from_weights),
    Fault("init_from a run", f"{FIT} --init_from={RUN} --model.lr=1e-12", 0, (BEST,), changes=NEW_RUN,
          then=starts_from_weights),
    Fault("init_from again without a checkpoint", INIT, 0, changes=NEW_RUN, then=starts_again),
    Fault("init_from another architecture", f"fit --model=CNN --model.channels=[4] {SMALL} --init_from={BEST}", 2,
          ("init_from", "MLP", "CNN")),
    Fault("init_from another width", f"{INIT} --model.width=9", 2, ("init_from", "[8, 3072]", "[9, 3072]")),
    Fault("init_from what lacks a layer", f"{INIT} --model.batch_norm=false", 2, ("init_from", "missing")),
    Fault("init_from on resume", f"{RESUME} --init_from={BEST}", 2, ("init_from",)),
    Fault("init_from on resume of the last", f"{INIT} --ckpt_path=last", 2, ("init_from",)),
    Fault("init_from for a test", f"test --ckpt_path={BEST} --init_from={BEST}", 2, ("init_from", "--ckpt_path")),
    Fault("resume with a callback that lacks a logger",
          f"{RESUME} --trainer.max_epochs=3 --trainer.callbacks+=LearningRateMonitor --trainer.logger=false", 2,
          ("trainer.callbacks: LearningRateMonitor: ",), changes=OLD_RUN),
    Fault("resume with other settings names init_from (#12118)", f"{RESUME} --model.dropout=0.3", 2,
          ("model.dropout", f"--init_from {RUN}")),
    Fault("test a config.yaml with init_from", f"test --ckpt_path={BEST} --config={RUN}/config.yaml", 0, (BEST,),
          {f"{RUN}/config.yaml": content(lambda text: text.replace(b"init_from: null", b"init_from: x"))}, TEST),
    *(Fault(f"{command} --ckpt_path {which} (#4468)", f"{command} {OF_NAME} --ckpt_path={which}", 0,
            (f"{RUN}/checkpoints/{which}.ckpt",), changes=(*TEST, f"{RUN}/predictions.csv"))
      for command in ("test", "validate", "predict") for which in ("best", "last")),
    *(Fault(f"test {which} of which run", f"test --ckpt_path={which}", 2, ("ckpt_path", "of which run"))
      for which in ("best", "last")),
    Fault("test best of no run", f"test --name=none --model=MLP {SMALL} --ckpt_path=best", 2, ("logs/none-synthetic",)),
    Fault("test a run without validation", f"test --ckpt_path={RUN}", 0, (LAST,), {BEST: gone}, TEST),
    Fault("flags beside a run", f"validate --ckpt_path={RUN} --data.val_size=50", 0,
          (f"{BEST}: MLP after epoch 1, ", "but for data.val_size 50 (there: 100)\n")),
    Fault("test a ModelCheckpoint with a slash", f"test --ckpt_path='{SLASH}'", 0, (f"written to {RUN}/test.json",),
          {SLASH: copied}, TEST),
    Fault("test a copy elsewhere", f"test --ckpt_path={ELSEWHERE}", 0, ("written to elsewhere/test.json",),
          {ELSEWHERE: copied}, ("elsewhere/test.json",)),
    Fault("predict with a copy in a folder of that name", "predict --ckpt_path=checkpoints/x.ckpt", 0,
          ("written to checkpoints/predictions.csv",),
          {"checkpoints/x.ckpt": copied}, ("checkpoints/predictions.csv",)),
]  # fmt: skip

# As Lightning leaves them out with `save_weights_only`.
STRIPPED = altered(lambda values: [values.pop(key) for key in ("callbacks", "optimizer_states", "lr_schedulers")])
WEIGHTS = f"{RUN}/checkpoints/weights.ckpt"
MINE = f"{FIT} --trainer.callbacks+=ModelCheckpoint --trainer.callbacks"


def kept_apart() -> None:
    """Assert that all of the run is as ever, and that both files of the callback are whole beside it."""
    now, whole = ({path.name for path in (run / "checkpoints").iterdir()} for run in (Path(NEW), WHOLE))
    assert now - whole == {"saved_last.ckpt", "epoch=1-step=8.ckpt"}
    for name in ("best", "last"):
        ours, theirs = (load(run / f"checkpoints/{name}.ckpt")["state_dict"] for run in (Path(NEW), WHOLE))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert main(["test", f"--ckpt_path={NEW}/checkpoints/saved_last.ckpt"]) == 0
    assert json.loads(Path(f"{NEW}/test.json").read_bytes())["checkpoint"] == f"{NEW}/checkpoints/saved_last.ckpt"
    assert main(["fit", f"--resume={NEW}", "--trainer.max_epochs=3"]) == 0
    assert not [*Path(NEW).rglob("*.damaged*")]


def untouched() -> None:
    assert "optimizer_states" not in load(Path(WEIGHTS))
    gone(Path(WEIGHTS))
    is_whole(RUN)


NOT_OURS: list[Fault] = [
    *(Fault(f"{command} weights alone (#20230)", f"{command} --ckpt_path={WEIGHTS}", 0, (WEIGHTS,), {WEIGHTS: STRIPPED},
            (*TEST, f"{RUN}/predictions.csv")) for command in ("test", "validate", "predict")),
    Fault("init_from weights alone", f"{FIT} --init_from={WEIGHTS} --model.lr=1e-12", 0, (), {WEIGHTS: STRIPPED},
          NEW_RUN, then=partial(starts_from_weights, WEIGHTS)),
    Fault("resume beside weights alone", RESUME, 0, (), {WEIGHTS: STRIPPED, LAST: gone}, OLD_RUN, then=untouched),
    Fault("resume beside a file that is no checkpoint", RESUME, 0, (), {f"{RUN}/checkpoints/a.ckpt": "a", LAST: gone},
          (*OLD_RUN[:-1], LAST, BEST, f"{RUN}/checkpoints/previous.ckpt")),
    Fault("ModelCheckpoint saves weights alone and its last", f"{MINE}.save_weights_only=true "
          "--trainer.callbacks.save_last=true", 0, changes=NEW_RUN, then=kept_apart),
    Fault("ModelCheckpoint named as the run's own", f"{MINE}.filename=best", 2, ("trainer.callbacks", "dirpath")),
]  # fmt: skip

TABLE: Table = [
    "a second door past our own: SLURM",
    *SLURM,
    "the run is guessed from the place of a file",
    *PLACES,
    "not mine is taken for damaged",
    *NOT_OURS,
]
