import pytest

from mlip.data.store.convert import convert
from mlip.data.store.layout import Layout


@pytest.fixture(scope="session")
def lithium(tmp_path_factory):
    """The lithium set as a store: 270 frames in shards of at most 50."""
    folder = tmp_path_factory.mktemp("store") / "lithium"
    return convert("mlearn_li", folder, layout=Layout(shard_frames=50))
