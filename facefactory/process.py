"""What a process of a chain does in a run folder: `python -m facefactory MODE FOLDER …`."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from facefactory import Failed, Missing, UserError, rundir, runner, say, surroundings
from facefactory.cluster import local
from facefactory.cluster.launch import OPENS
from facefactory.cluster.local import INTERRUPTED
from facefactory.run import Run, load_run
from facefactory.rundir import RunDir
from facefactory.runner import Interrupted
from facefactory.stages import of


def guarded(work: Callable[[], None]) -> int:
    """Run `work`; its exit code.

    A person's mistake is one line and exit code 2, weights that are not here 3, a stop 75, a lost
    owner 4, and what cannot be done 1.
    """
    rundir.settle_umask()
    try:
        work()

    # what a person can mend, or does not have to
    except UserError as error:
        say(f"error: {error}")
        return 3 if isinstance(error, Missing) else 2
    except Interrupted as error:
        saved = str(error) or "what was done is saved"
        say(f"interrupted; {saved}. The same command goes on with it.")
        return INTERRUPTED
    except rundir.OwnerLost as error:
        say(f"stopped: {error}")
        return 4
    except KeyboardInterrupt:
        return 130

    # what cannot be done
    except (Failed, FloatingPointError, OSError) as error:
        if isinstance(error, OSError) and error.errno in rundir.FULL:
            say(f"error: {rundir.no_room(error)}")
            return 2
        say(f"failed: {error}")
        return 1
    return 0


def main(arguments: list[str]) -> int:
    """One process of a chain; its exit code.

    `stages FOLDER NAME…` runs stages (on another rank than the first: what that has to do with
    them), `last` does so after all others, however they ended; `part FOLDER NAME …` does one
    process's part of a stage; `follow FOLDER NAME` is a rank in its launcher's name; `probe FOLDER`
    is a job of check.py. `key=value` among the names are options of a job on a finished run.
    """
    surroundings.settle(started_by_us=True)
    local.die_with_parent()
    runner.stop.listen()
    mode, path, *rest = arguments
    return guarded(lambda: _work(mode, RunDir(Path(path)), rest))


def _work(mode: str, folder: RunDir, arguments: list[str]) -> None:
    """What a mode does in a run folder."""
    if mode == "probe":
        from facefactory.cluster import check

        return check.probe(folder.path)
    rundir.check_modes(folder.path)
    names = [argument for argument in arguments if "=" not in argument]
    settings = [argument for argument in arguments if "=" in argument]
    options = [setting for setting in settings if not setting.startswith(OPENS)]
    run = load_run(folder.path, options)
    surroundings.set_threads(run.training.threads)

    # the work itself, by the one who leads or by a rank that follows
    if mode == "part":
        of(names[0]).part(run, folder, names[1:])
    elif mode == "follow" or surroundings.own_rank() > 0:
        runner.follow(run, folder, names)
    elif mode == "last":
        _finish(run, folder, names)
    else:
        folder.claim()
        runner.execute(run, folder, names)

    # the jobs that come next start at the same time, into one folder
    for setting in settings:
        if setting.startswith(OPENS) and surroundings.own_rank() == 0:
            folder.claim()
            runner.begin(run, folder, of(setting.removeprefix(OPENS)))


def _finish(run: Run, folder: RunDir, names: list[str]) -> None:
    """The stages of a chain's last job.

    What lacks a stage before it is left out, and why it lacks is written down.
    """
    from facefactory.cluster import status

    folder.claim()
    status.record_failures(folder)
    can_begin = [name for name in names if runner.can_begin(run, folder, of(name))]
    with contextlib.suppress(Failed):  # it is in the report
        runner.execute(run, folder, can_begin)
