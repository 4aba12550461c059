"""What the tests of chains on Slurm share: submitting jobs as people do, and the figures they left."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from facefactory import rundir

from .conftest import Cluster

ROOT = Path(__file__).parents[2]
PACED = """\
import os
import sys
import time
from pathlib import Path

from facefactory.objectives.adversarial import Component as Adversarial

PACE = Path({pace!r})
print("scratch is", os.environ.get("TMPDIR"), flush=True)


class Component(Adversarial):
    def loss(self, phase, model, batch):
        try:
            time.sleep(float(PACE.read_text()))
        except FileNotFoundError:
            pass
        if self.terms["r1"].gamma == 2 and "finalists" in sys.argv and PACE.with_name("break").exists():
            raise LookupError("this finalist is broken on purpose")
        return super().loss(phase, model, batch)
"""


@dataclass(frozen=True)
class Place:
    """A folder below which jobs of one test run on one cluster."""

    cluster: Cluster
    folder: Path
    recipe: Path
    checkout: Path = ROOT

    def profile(self, name: str = "profile", **changes: Any) -> str:
        """A profile for nodes of 4 CPUs, two processes on each; the path of its file."""
        plain = {
            "processes_per_node": 2,
            "cpus_per_process": 1,
            "memory_gb": 1.5,
            "cpu_min": 10,
            "gpu_min": 10,
            "sweep_min": 10,
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(plain | {"partition": "gpu"} | changes))
        return f"profile={path}"

    def job(self, job: str, *arguments: str, code: int = 0) -> str:
        """Run a job of the project on the login node; what it printed."""
        line = [sys.executable, str(self.checkout / "jobs" / f"{job}.py"), *arguments]
        environment = self.cluster.env | {"PYTHONPATH": str(self.checkout)}
        done = subprocess.run(
            line, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=800
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def train(
        self, run: str, *arguments: str, code: int = 0, ranks: int = 2, kimg: float = 2.0
    ) -> str:
        """A small GAN on Slurm."""
        usual = [
            "config=tiny",
            "cluster=slurm",
            f"run={run}",
            f"pack.recipe={self.recipe}",
            f"training.ranks={ranks}",
        ]
        usual += [f"training.total_kimg={kimg}", "training.checkpoint_kimg=0.5"]
        return self.job("train_gan", *usual, *arguments, code=code)

    def drill(self, run: str, *arguments: str, code: int = 0) -> str:
        """A GAN of 2 ranks whose loss takes as long as `pace` says; each run ends with the weights of run `undisturbed`."""
        self.drill_files()
        usual = [f"objective.name={self.folder / 'paced.py'}", "training.checkpoint_kimg=0.2"]
        return self.train(
            run,
            *usual,
            *arguments,
            kimg=1.2,
            code=code,
        )

    def drill_files(self) -> None:
        """The objective of drills."""
        (self.folder / "paced.py").write_text(
            PACED.replace("{pace!r}", repr(str(self.folder / "pace")))
        )

    def pace(self, seconds: float | None) -> None:
        """How long each loss of a `drill` waits, now."""
        with rundir.atomic(self.folder / "pace") as temporary:
            temporary.write_text(str(seconds or 0))

    def same_as_undisturbed(self, run: str) -> None:
        """Assert that a drill ended with the weights of one that nothing happened to."""
        self.pace(None)
        self.until_ended(run)
        if not (self.path("undisturbed") / "train" / "DONE.json").exists():
            self.drill("undisturbed", "cluster=local")
        assert (self.path(run) / "train" / "DONE.json").exists(), self.logs(run)
        assert self.weights(run) == self.weights("undisturbed"), self.logs(run)

    def ledger(self, run: str, stage: str = "train") -> list[str]:
        """The states that a stage of a run went through."""
        return [
            line["state"]
            for line in rundir.read_jsonl(self.path(run) / "jobs.jsonl")
            if line["stage"] == stage
        ]

    def path(self, run: str) -> Path:
        """A run folder."""
        return self.folder / "runs" / run

    def weights(self, run: str) -> str:
        """Digest of what a run trained."""
        found: str = json.loads((self.path(run) / "train" / "DONE.json").read_text())["outputs"][
            "checkpoint"
        ]
        return found

    def ids(self, run: str) -> dict[str, str]:
        """Stage -> Slurm job, of the last submission."""
        lines = rundir.read_jsonl(self.path(run) / "jobs.jsonl")
        return {line["stage"]: line["job"] for line in lines if line["state"] == "submitted"}

    def status(self, run: str, code: int = 0) -> dict[str, Any]:
        """What jobs/status.py says, by stage (the last element of an array)."""
        text = self.job("status", f"run={run}", "json=true", code=code)
        found = json.loads(text[: text.rindex("}") + 1])
        return {"source": found["source"]} | {row["stage"]: row for row in found["jobs"]}

    def until_trained(
        self, run: str, kimg: float, stage: str = "train", timeout: float = 90
    ) -> None:
        """Wait until a training of the run has logged so many images, and slow it down.

        So it is still at work when something happens to it, on a loaded machine too.
        """

        def furthest() -> float:
            lines = [
                line
                for path in self.path(run).glob(f"{stage}/metrics-*.jsonl")
                for line in rundir.read_jsonl(path)
            ]
            return max((line["kimg"] for line in lines), default=0.0)

        self.cluster.until(lambda: furthest() >= kimg, timeout, f"{kimg} kimg of {run}")
        self.pace(1.0)

    def until_ended(self, run: str, timeout: float = 180) -> None:
        """Wait until no job of the run is queued or running."""
        names = set(self.ids(run).values())

        def ended() -> bool:
            queued = self.cluster.run("squeue", "-h", "-o", "%A", check=False).split()
            return not names & set(queued)

        self.cluster.until(ended, timeout, f"the end of {run}: {names}\n{self.logs(run)}")

    def logs(self, run: str) -> str:
        """All logs of a run's jobs."""
        return "\n".join(
            f"== {path}\n{path.read_text()[-3000:]}"
            for path in self.path(run).glob("private/jobs/*.out")
        )

    def records(self, run: str) -> list[str]:
        """`name state` of every Slurm job of the run, elements of arrays one by one."""
        ids = ",".join(self.ids(run).values())
        return sorted(
            self.cluster.run("sacct", "-nXP", "-j", ids, "-o", "JobName%60,State")
            .replace("|", " ")
            .splitlines()
        )
