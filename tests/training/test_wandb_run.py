"""A resumed training goes on in its run of Weights & Biases."""

from hydra.utils import instantiate

from mlip.config import compose
from mlip.training.wandb_run import ID, logger_of


def test_no_logger(tmp_path):
    assert logger_of(compose("train").logger, tmp_path) is False
    assert not list(tmp_path.iterdir())


def test_the_id_stays_with_the_folder(tmp_path):
    config = compose("train", ["logger=wandb", f"output={tmp_path}"]).logger
    ids = []
    for step in range(2):
        logger = logger_of(config, tmp_path)
        logger.log_metrics({"loss": 1.0 - step}, step=step)
        ids.append(logger.experiment.id)
        logger.experiment.finish()
    assert ids[0] == ids[1] == (tmp_path / ID).read_text()
    runs = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert runs
    assert all(path.name.endswith(ids[0]) for path in runs)


def test_another_folder_is_another_run(tmp_path):
    config = compose("train", ["logger=wandb", f"output={tmp_path}"]).logger
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        logger_of(config, tmp_path / name)
    assert (tmp_path / "a" / ID).read_text() != (tmp_path / "b" / ID).read_text()


def test_other_loggers_are_made_as_they_are(tmp_path):
    config = compose("train", ["+logger._target_=lightning.pytorch.loggers.CSVLogger",
                               f"+logger.save_dir={tmp_path}"]).logger  # fmt: skip
    assert type(logger_of(config, tmp_path)) is type(instantiate(config))
