"""Requests to stop before the last epoch, by `trainer.should_stop`: who asks, why, and whether the loop heeds it."""

from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

WITHOUT = "without the callback (--trainer.callbacks null)"
PATIENTLY = f"to go on, resume with more --trainer.callbacks.patience, another monitor, or {WITHOUT}"
LONGER = f"to go on, resume with a longer --trainer.callbacks.duration, or {WITHOUT}"
SCHEDULE_ENDS = "its schedule ends there"


class TimeLimit(Timer):
    """`max_time`, counted from each start: no checkpoint keeps what has passed of it."""

    def state_dict(self) -> dict[str, Any]:
        return {}


def heeded(trainer: Trainer) -> bool:
    """Return whether the loop would end on a request now."""
    return trainer.should_stop and may_end(trainer, epochs_done(trainer), trainer.global_step)


def may_end(trainer: Trainer, epochs: int, steps: int) -> bool:
    """Return whether `min_epochs` and `min_steps` are done."""
    return epochs >= (trainer.min_epochs or 0) and steps >= (trainer.min_steps or 0)


def request(trainer: Trainer) -> dict[str, Any]:
    """Return the `reason` to stop, the `way_on`, and `by`: who would ask again after a resume, on what settings.

    {} if nothing asks, and no way on where a model's schedule ends. A checkpoint holds it, so it is of plain values.
    """
    everyone = callbacks_of(trainer)
    early = [x for x in trainer.early_stopping_callbacks if x.stopping_reason != EarlyStoppingReason.NOT_STOPPED]
    left = {each: each.time_remaining() for each in everyone if isinstance(each, Timer)}
    over = [each for each, seconds in left.items() if seconds is not None and seconds <= 0]
    reason, by, way_on = "", list[Callback](), "resume with"
    if trainer.should_stop and early:
        reason, by, way_on = _reason(trainer, early[0]), [*early], PATIENTLY
    elif trainer.global_step == trainer.max_steps:
        reason = f"max_steps {trainer.max_steps} is reached"
        ends = getattr(trainer.lightning_module, "schedule", "constant") != "constant"
        way_on = "" if ends else "resume with a larger --trainer.max_steps"
    elif trainer.should_stop and over:
        by = [each for each in over if not isinstance(each, TimeLimit)]
        reason, way_on = ("a Timer's time is over", LONGER) if by else ("its time is over (max_time)", way_on)
    elif trainer.should_stop:
        by = [x for x in everyone if not type(x).__module__.startswith(("lightning.", "cifar_lightning."))]
        reason = f"{' or '.join(type(each).__name__ for each in by) or 'the model'} asked for it"
        way_on = f"to go on, resume {WITHOUT}" if by else way_on
    settings = {each.state_key: decided_by(each) for each in by}
    return {"reason": reason, "by": settings, "way_on": way_on} if reason else {}


def callbacks_of(trainer: Any) -> list[Callback]:
    """Return all callbacks, which Lightning's types do not know of; nor do they know of the progress below."""
    return list(trainer.callbacks)


def epochs_done(trainer: Any) -> int:
    """Return the number of whole epochs, before and after their checkpoints."""
    return int(trainer.fit_loop.epoch_progress.current.processed)


def stands(asked: dict[str, Any], trainer: Trainer) -> bool:
    """Return whether a callback that asked, as a checkpoint holds it, is there and would decide likewise."""
    by = asked.get("by", {})
    return any(by[each.state_key] == decided_by(each) for each in callbacks_of(trainer) if each.state_key in by)


def decided_by(callback: Callback) -> list[Any]:
    """Return the settings on which a callback decides, beside a monitor and mode; of a person's own none is known."""
    if isinstance(callback, Timer):
        return [callback.time_remaining("test")]  # of which nothing has passed: all there is
    if not isinstance(callback, EarlyStopping):
        return []
    thresholds = [callback.stopping_threshold, callback.divergence_threshold]
    return [callback.patience, callback.min_delta, callback.check_finite, *thresholds]


def _reason(trainer: Trainer, early: EarlyStopping) -> str:
    each_epoch = trainer.val_check_interval == 1.0 and trainer.check_val_every_n_epoch == 1
    checks = ("epoch" if each_epoch else "check") + "s" * (early.patience != 1)
    reasons = {
        EarlyStoppingReason.PATIENCE_EXHAUSTED: f"did not improve for {early.patience} {checks}",
        EarlyStoppingReason.STOPPING_THRESHOLD: f"reached {early.stopping_threshold}",
        EarlyStoppingReason.DIVERGENCE_THRESHOLD: f"passed {early.divergence_threshold}, its divergence_threshold",
        EarlyStoppingReason.NON_FINITE_METRIC: "is not finite",
    }
    return f"{early.monitor} {reasons[early.stopping_reason]}"
