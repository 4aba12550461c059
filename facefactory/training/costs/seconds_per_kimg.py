"""Seconds of one rank for a thousand images, timed on this machine as if it had nothing else to do."""

import time
from typing import Any

import torch

from facefactory.training.costs import Planned
from facefactory.training.costs._trial_run import Silent, batch_of, step_of

QUICK = False
CYCLE = 16  # iterations: what regularisers do now and then is in them, at their usual intervals
MOST_S = 4.0  # a slow training is timed for fewer
FEWEST = 2


def estimate(planned: Planned) -> float:
    """Of a whole batch on one rank, after one iteration that is not counted."""
    on_gpu = planned.options.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    step = step_of(planned, device)
    batch = batch_of(planned, device)
    log: Any = Silent()
    clock = step(batch, 0, log)

    began = _seconds(device)
    done = 0
    while done < CYCLE and (done < FEWEST or _seconds(device) - began < MOST_S):
        clock = step(batch, clock, log)
        done += 1
    return (_seconds(device) - began) / (done * planned.options.batch_size) * 1000


def _seconds(device: torch.device) -> float:
    """A clock: of a GPU that has done all that it was asked, else of the processors that this process had."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.monotonic()
    return time.process_time() / torch.get_num_threads()
