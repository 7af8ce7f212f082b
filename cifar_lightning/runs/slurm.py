"""A run in a SLURM job: Lightning's own requeueing is replaced by ours, which leaves nothing outside the run folder.

Lightning saves `hpc_ckpt_N.ckpt` to the working directory, in the middle of a step, and loads it into whatever starts
there next. Here a signal saves to the run folder as Ctrl-C does, and the requeued job finds its run by the job's id.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from cifar_lightning.errors import check
from cifar_lightning.runs.layout import RunFolder, versions
from cifar_lightning.utils import files
from cifar_lightning.utils.rank import rank


def job_id() -> str | None:
    """Return the id of the job that this process runs in, `7_3` for a task of an array; None outside of one."""
    if (job := SLURMEnvironment.job_id()) is None:
        return None
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else str(job)


def take_over(plugins: list[Any]) -> tuple[bool, signal.Signals | None]:
    """Keep Lightning from requeueing the job; return whether it was to, and at which signal.

    A person's own `SLURMEnvironment` among the plugins decides both; where Lightning would make one, it is added.
    """
    environment = next((plugin for plugin in plugins if isinstance(plugin, SLURMEnvironment)), None)
    if environment is None and SLURMEnvironment.detect():
        tasks = os.environ["SLURM_NTASKS"]
        told = tasks == "1" or "SLURM_NTASKS_PER_NODE" in os.environ
        check(told, "SLURM_NTASKS", tasks, "--ntasks-per-node in place of --ntasks: Lightning needs it")
        plugins.append(environment := SLURMEnvironment())
    if environment is None:
        return True, getattr(signal, "SIGUSR1", None)
    requeues, environment.auto_requeue = environment.auto_requeue, False
    return requeues, environment.requeue_signal


def record(run: RunFolder, arguments: Sequence[str]) -> None:
    """Write down which job, if it is one, began a run, and with which arguments."""
    if job_id():
        files.replace(run.job, _described(arguments))


def run_of_job(runs: Path, arguments: Sequence[str]) -> RunFolder | None:
    """Return the run among those of one name that this very job began with the same arguments."""
    found = (RunFolder(path) for _, path in sorted(versions(runs), reverse=True))
    return next((run for run in found if run.job.is_file() and run.job.read_bytes() == _described(arguments)), None)


def _described(arguments: Sequence[str]) -> bytes:
    return json.dumps({"job": job_id(), "arguments": [*arguments]}).encode()


def requeue() -> None:
    """Put the job back into SLURM's queue, which ends this process sooner or later: the last thing to do."""
    if (job := job_id()) is None or rank():  # one of its processes is enough
        return
    print(f"SLURM job {job} is requeued: the same command resumes its run", file=sys.stderr, flush=True)
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", None) or error
        print(f"SLURM job {job} was not requeued: {str(why).strip()}", file=sys.stderr)
