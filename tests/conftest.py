"""What the tests share: nothing of theirs goes to the user's cache."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """A cache folder of this test run, for the processes that tests start too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STIG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
