"""What --cluster may name, and the job scripts that queueing systems get."""

import pytest

from napari_nnunet.errors import ResourceError, SettingsError
from napari_nnunet.processes.cluster import start
from napari_nnunet.processes.cluster.start import needed, queue_cluster
from napari_nnunet.processes.cluster.where import Local, Queue, Scheduler, where

pytest.importorskip("distributed", reason="dask.distributed is not installed: it comes with napari-nnunet[cluster]")

FILE = """
cores = 8
memory = "32GB"
gpu = true
walltime = "04:00:00"
queue = "gpu"
account = "lab"
directives = ["--extra"]
setup = ["module load cuda"]
python = "/shared/python"
"""


def settings(tmp_path, kind, text=FILE):
    path = tmp_path / "cluster.toml"
    path.write_text(f'kind = "{kind}"\nfolder = "{tmp_path / "logs"}"\n{text}')
    found = where(str(path))
    assert isinstance(found, Queue)
    return found


def test_a_scheduler_workers_here_and_a_file_are_told_apart(tmp_path):
    assert where("tcp://node1:8786") == Scheduler("tcp://node1:8786")
    assert where("local") == Local(1) and where("local:4") == Local(4)
    assert settings(tmp_path, "pbs").kind == "pbs"
    (tmp_path / "bare.toml").write_text('memory = "8GB"\n')
    assert where(f"slurm:{tmp_path / 'bare.toml'}").kind == "slurm"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("node1:8786", "is not understood. Give the address of a dask scheduler"),
        ("tcp://node1:99999", "is not understood"),
        ("local:0", "asks for no worker"),
        ("slurm:nowhere.toml", "nowhere.toml does not exist"),
    ],
)
def test_other_words_are_refused_with_what_is_allowed(text, message):
    with pytest.raises(SettingsError) as caught:
        where(text)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cores = 8\n", "The setting 'memory' is missing"),
        ('memory = "much"\n', "memory = 'much' is not a size. Write a number and a unit: 32GB."),
        ('memory = "8GB"\nwalltime = "long"\n', "walltime = 'long' is not a time limit"),
        ('memory = "8GB"\ncore = 8\n', "There is no setting 'core'. Known: kind, workers, cores"),
        ('memory = "8GB"\ncores = 0\n', "cannot be 0"),
        ('memory = "8GB"\nqueue = "a\\n#SBATCH --wrap=x"\n', "is not one line. Give lines of shell as 'setup'"),
        ('memory = "8GB"\ndirectives = ["--a\\nrm -rf x"]\n', "is not one line"),
        ('memory = "8GB"\nworkers = 100000000\n', "The setting 'workers' cannot be 100000000"),
        ('memory = "8GB"\ncls = "x"\n', "There is no setting 'cls'"),
        ("cores = " + "9" * 5000, "is not TOML"),
        ("a = " + "[" * 100_000, "is not TOML"),
        ("memory = 8GB\n", "is not TOML"),
    ],
)
def test_a_file_that_does_not_say_what_it_must_is_refused(tmp_path, text, message):
    with pytest.raises(SettingsError) as caught:
        settings(tmp_path, "slurm", text)
    assert message in caught.value.message and "cluster.toml" in caught.value.message


def test_a_file_about_another_system_is_refused(tmp_path):
    settings(tmp_path, "pbs")
    with pytest.raises(SettingsError, match="is about pbs, not about slurm"):
        where(f"slurm:{tmp_path / 'cluster.toml'}")


SCRIPTS = {
    "slurm": ("#SBATCH -p gpu", "#SBATCH -A lab", "#SBATCH --cpus-per-task=8", "#SBATCH --mem=30G",
              "#SBATCH -t 04:00:00", "#SBATCH --gres=gpu:1", "#SBATCH --extra"),
    "pbs": ("#PBS -q gpu", "#PBS -A lab", "#PBS -l select=1:ncpus=8:mem=32000MB:ngpus=1", "#PBS -l walltime=04:00:00",
            "#PBS --extra"),
    "lsf": ("#BSUB -q gpu", '#BSUB -P "lab"', "#BSUB -n 8", "#BSUB -M 32000", "#BSUB -W 04:00",
            '#BSUB -gpu "num=1"', "#BSUB --extra"),
    "sge": ("#$ -q gpu", "#$ -P lab", "#$ -l h_rt=04:00:00", "#$ --extra"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SCRIPTS)
def test_job_scripts_ask_each_system_in_its_own_words(tmp_path, kind):
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed: it comes with napari-nnunet[cluster]")
    found = settings(tmp_path, kind)
    with queue_cluster(found) as cluster:
        script = cluster.job_script()
    lines = script.splitlines()
    for wanted in SCRIPTS[kind]:
        assert wanted in lines, script
    assert "module load cuda" in lines
    (command,) = [line for line in lines if line.startswith("/shared/python -m distributed.cli.dask_worker")]
    # The last of several counts: one task at a time, and no limit that would pause a worker.
    words = command.split()
    assert [words[i + 1] for i, word in enumerate(words) if word == "--nthreads"][-1] == "1"
    assert [words[i + 1] for i, word in enumerate(words) if word == "--memory-limit"][-1] == "0"
    assert "--resources GPU=1" in command
    assert (tmp_path / "logs").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("slurm", "#SBATCH -t 1-02:30:30"),
        ("pbs", "#PBS -l walltime=26:31:00"),
        ("lsf", "#BSUB -W 26:31"),
        ("sge", "#$ -l h_rt=26:31:00"),
    ],
)
def test_a_time_limit_is_written_as_each_system_knows_it(tmp_path, kind, line):
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed: it comes with napari-nnunet[cluster]")
    with queue_cluster(settings(tmp_path, kind, 'memory = "8GB"\nwalltime = "1-02:30:30"\n')) as cluster:
        assert line in cluster.job_script().splitlines()


def test_hours_and_minutes_are_not_taken_for_minutes_and_seconds(tmp_path):
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed: it comes with napari-nnunet[cluster]")
    with queue_cluster(settings(tmp_path, "slurm", 'memory = "8GB"\nwalltime = "04:00"\n')) as cluster:
        assert "#SBATCH -t 04:00:00" in cluster.job_script().splitlines()


def test_the_memory_of_a_job_is_a_number(tmp_path):
    assert settings(tmp_path, "slurm").gigabytes == 32.0
    assert settings(tmp_path, "slurm", 'memory = "500 MiB"\nwalltime = "1-02:30:00"\n').gigabytes == 0.5


def test_libraries_that_are_not_installed_are_named_with_the_command(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(start, "import_module", missing)
    with pytest.raises(ResourceError, match=r"need distributed and more.*pip install \"napari-nnunet\[cluster\]\""):
        needed("distributed")


@pytest.mark.parametrize("name", ["/tmp/a\\n#SBATCH --wrap=x", "/tmp/a\\u0000b"])
def test_a_folder_for_logs_is_one_line(tmp_path, name):
    (tmp_path / "cluster.toml").write_text(f'kind = "slurm"\nmemory = "8GB"\nfolder = "{name}"\n', encoding="utf-8")
    with pytest.raises(SettingsError, match="is not one line"):
        where(str(tmp_path / "cluster.toml"))
