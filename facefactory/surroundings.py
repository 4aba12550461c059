"""The environment of a process: what steers libraries from outside is set aside before they load.

A run says itself how many ranks, threads and GPUs it has and where its Ray is. What a shell, a
container or another launcher has left behind (`WORLD_SIZE`, `RAY_ADDRESS`, `OMP_NUM_THREADS` …)
must not answer in its place.
"""

import locale
import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

from facefactory import UserError

# What launchers of ranks say; ours say it too, and beside it OURS: "<RANK> of <WORLD_SIZE>"
RANKS = (
    "RANK",
    "WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "NODE_RANK",
    "GROUP_RANK",
    "GROUP_WORLD_SIZE",
    "ROLE_RANK",
    "ROLE_NAME",
    "ROLE_WORLD_SIZE",
)
OURS = "FACEFACTORY_RANK"

# How many copies of a command a launcher has started
COPIES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
INTERFACE = "GLOO_SOCKET_IFNAME"

# What our own processes tell each other; nothing of it may come from a shell
HANDED = ("FACEFACTORY_OWNER", "FACEFACTORY_LOG", "FACEFACTORY_JOB", "FACEFACTORY_RAY", OURS)
RAY_ADDRESS = "FACEFACTORY_RAY"
WEIGHTS = "FACEFACTORY_WEIGHTS"

# Handed to the driver of a sweep beside the address
RAY_TOKEN = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")

# Ray ≥ 2.60 switches token authentication on by itself, with one token for all in the home folder
RAY = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}

THREADS = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "GOTO_", "BLIS_", "NUMEXPR_", "VECLIB_")
LIBRARIES = (
    "RAY_",
    "TUNE_",
    "OPTUNA_",
    "GRPC_",
    "MPL",
    "TORCHELASTIC_",
    "PET_",
    "TORCH",
    "PYTORCH_",
)
# They change results
NUMBERS = (
    "ATEN_CPU_",
    "ONEDNN_",
    "DNNL_",
    "NVIDIA_TF32_OVERRIDE",
    "CUBLAS_WORKSPACE_CONFIG",
)
PYTHON = ("PYTHONWARNINGS", "PYTHONINSPECT", "PYTHONBREAKPOINT", "PYTHONIOENCODING")
SLURM = (
    "SBATCH_",
    "SQUEUE_",
    "SACCT_",
    "SINFO_",
    "SCANCEL_",
    "SCONTROL_",
    "SALLOC_",
    "SRUN_",
    "SLURM_TIME_FORMAT",
)

# What only a site can know: who pays, which network and memory there is, where caches lie
SITE = (
    "SBATCH_ACCOUNT",
    "SBATCH_QOS",
    "SBATCH_RESERVATION",
    "SBATCH_CLUSTERS",
    "TORCH_NCCL_",
    "TORCH_HOME",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "TORCH_CPP_LOG_LEVEL",
    "TORCH_CUDA_ARCH_LIST",
    "TORCH_EXTENSIONS_DIR",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_NVML_BASED_CUDA_CHECK",
    "TRITON_CACHE_DIR",
    "TORCHINDUCTOR_CACHE_DIR",  # torch itself hands it to its children
)

HIDDEN = ("", "-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES that hide every GPU


def rank(number: int, size: int) -> dict[str, str]:
    """What a launcher of ours says beside torch's own variables, so that they are known as ours."""
    return {OURS: f"{number} of {size}"}


def settle(started_by_us: bool) -> list[str]:
    """Set aside what steers libraries from outside; the names a person should hear of.

    `started_by_us`: a process of a chain, whose launcher may have named its rank and its Ray.
    """
    # What our own launcher has said is believed
    words = f"{os.environ.get('RANK')} of {os.environ.get('WORLD_SIZE')}"
    kept = set[str]()
    if started_by_us:
        kept.update(HANDED)
    if started_by_us and os.environ.get(OURS) == words:
        kept.update(RANKS)
    if started_by_us and RAY_ADDRESS in os.environ:
        kept.update(RAY_TOKEN)

    # All else that steers is gone before a library loads
    aside = [name for name in sorted(os.environ) if _steers(name) and name not in kept]
    if not _usable(os.environ.get("TMPDIR")):
        aside.append("TMPDIR")
    for name in aside:
        del os.environ[name]
    if "PYTHONWARNINGS" in aside:  # Python has read it already
        warnings.resetwarnings()
        warnings.simplefilter("ignore", DeprecationWarning)

    # A trial works in another folder: what is named from here must be found from there
    paths = os.environ.get("PYTHONPATH")
    if paths:
        os.environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, paths.split(os.pathsep)))
    return [name for name in aside if not name.startswith(THREADS)]


def _steers(name: str) -> bool:
    """Whether a variable is one of those that steer a library."""
    if name in (*RANKS, *HANDED, *PYTHON) or steers_slurm(name):
        return True
    return name.startswith((*THREADS, *LIBRARIES, *NUMBERS)) and not name.startswith(SITE)


def steers_slurm(name: str) -> bool:
    """Whether a variable changes what Slurm's commands do or print, and is not a site's to set."""
    return name.startswith(SLURM) and not name.startswith(SITE)


def _usable(folder: str | None) -> bool:
    """Whether temporary files can be made in a folder; None is the system's own."""
    return folder is None or (os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK))


def speak_utf8() -> None:
    """Start this Python again in its UTF-8 mode where locale or terminal have another encoding.

    What is read and said is UTF-8. Without a locale (LC_ALL=C) Python is in that mode by itself.
    """
    files = "utf-8" if sys.flags.utf8_mode else locale.getencoding()
    encodings = (files, sys.stdout.encoding, sys.stderr.encoding)
    spoken = {name.lower().replace("-", "") for name in encodings}
    if spoken == {"utf8"} or os.environ.get("PYTHONUTF8") == "1":
        return
    os.environ["PYTHONUTF8"] = "1"
    os.environ.pop("PYTHONIOENCODING", None)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def check_alone(environment: Mapping[str, str]) -> None:
    """UserError: a launcher has started several copies of this job, which would share its folder."""
    for name in COPIES:
        copies = environment.get(name, "1")
        if copies != "1":
            raise UserError(
                f"{name}={copies} is set: a launcher (torchrun, mpirun, srun …) has started copies of "
                "this job, or has left that behind. A job is started once, and starts its ranks itself: "
                f"give training.ranks=…, and unset {name}."
            )


def check_gpus(device: str) -> None:
    """UserError: GPUs are asked for and hidden at the same time."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if device == "cuda" and hidden is not None and hidden.strip() in HIDDEN:
        raise UserError(
            f"training.device=cuda, but CUDA_VISIBLE_DEVICES={hidden!r} hides every GPU; "
            "unset it, or give training.device=cpu."
        )


def check_network() -> None:
    """UserError: ranks shall talk over a network interface that this machine does not have."""
    import socket

    wanted = os.environ.get(INTERFACE, "") if world_size() > 1 else ""
    interfaces = [name for _, name in socket.if_nameindex()]
    missing = [name for name in wanted.split(",") if name and name not in interfaces]
    if missing:
        raise UserError(
            f"{INTERFACE}={wanted}, but {socket.gethostname()} has no interface "
            f"{', '.join(missing)}, only {', '.join(interfaces)}; "
            "unset it, or mend environment in your profile."
        )


def set_threads(threads: int) -> None:
    """Let NumPy and SciPy use so many threads (`training.threads`): their sums depend on it."""
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for what loads from now on

    # what is loaded already has as many as the machine has cores
    import threadpoolctl

    threadpoolctl.threadpool_limits(threads, "blas")


def leave_job() -> list[str]:
    """Forget the Slurm job that a submission is made from; the names.

    Its sizes would steer the new job's srun, or contradict them.
    """
    kept = ("SLURM_CONF", "SLURM_CLUSTERS")
    names = [name for name in os.environ if name.startswith("SLURM_") and name not in kept]
    for name in names:
        del os.environ[name]
    return names


def sees_gpus() -> bool:
    """Whether Slurm granted GPUs or there is a driver, and they are not all hidden."""
    import shutil

    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in HIDDEN:
        return False
    return "SLURM_JOB_GPUS" in os.environ or shutil.which("nvidia-smi") is not None


def child(root: Path) -> dict[str, str]:
    """What makes a child import the code of `root`, and nothing from the folder where one stands."""
    inherited = os.environ.get("PYTHONPATH")
    path = f"{root}{os.pathsep}{inherited}" if inherited else str(root)
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": path}


def own_rank() -> int:
    """Which of the ranks of its job this process is; 0 alone."""
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    """How many ranks its job has."""
    return int(os.environ.get("WORLD_SIZE", 1))


def nodes() -> int:
    """Nodes of the Slurm job that this process is in; 1 outside of one."""
    return int(os.environ.get("SLURM_JOB_NUM_NODES", 1))


def cpus_granted() -> int:
    """CPUs that Slurm gave to this process; 1 outside of a job."""
    return int(os.environ.get("SLURM_CPUS_PER_TASK", 1))


def memory_granted() -> int | None:
    """Bytes of memory that Slurm gave to this node's share of the job; None: it did not say."""
    megabytes = int(os.environ.get("SLURM_MEM_PER_NODE", 0))
    return megabytes * 2**20 or None


def gpus_granted() -> bool:
    """Whether Slurm gave GPUs to this job."""
    return "SLURM_JOB_GPUS" in os.environ


def job() -> str | None:
    """The Slurm job, or element of an array, of a chain that this process is in."""
    return os.environ.get("FACEFACTORY_JOB")


def in_chain_job() -> bool:
    """Whether this process is in a job of a chain that was submitted."""
    return "FACEFACTORY_JOB" in os.environ


def log() -> str | None:
    """The file that this process's output goes to, if its launcher has told it."""
    return os.environ.get("FACEFACTORY_LOG")


def weights() -> str | None:
    """The folder of published weights, as a person or the cluster's profile names it."""
    return os.environ.get(WEIGHTS) or None


def set_weights(folder: str | None) -> None:
    """The cluster's folder of published weights, for this process and those that it starts.

    What a person has set goes before.
    """
    if folder is not None and weights() is None:
        os.environ[WEIGHTS] = folder


def ray_address() -> str | None:
    """The Ray that was started for this process."""
    return os.environ.get(RAY_ADDRESS)
