"""What the tests share: a cache of their own, and weights in the format of Inception's."""

import signal

import hypothesis
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from pytorch_fid import inception as pytorch_fid_inception

hypothesis.settings.register_profile("stig", deadline=None)  # a busy machine is no mistake of ours
hypothesis.settings.load_profile("stig")
LONGEST = ("test_distributed.py", "test_train.py", "test_detect.py", "test_elsewhere.py", "test_quality.py")


def pytest_collection_modifyitems(items):
    """Long modules come first: a process that began one at the end would keep all others waiting."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(autouse=True)
def seeded():
    """A test draws the same numbers whichever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def ctrl_c():
    """Ctrl-C interrupts, as in a terminal, where a shell in the background or nohup would have it ignored, too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """A cache folder of this test run, for the processes that tests start too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STIG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def drawn_figures():
    """For a test that looks at figures, where others have `quick_figures`."""


@pytest.fixture
def quick_figures(monkeypatch, request):
    """Figures are put together and written blank: drawing them takes longer than the training of a test."""
    if "drawn_figures" not in request.fixturenames:
        monkeypatch.setattr(FigureCanvasAgg, "draw", FigureCanvasAgg.get_renderer)


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Weights in the format of pytorch-fid's file, drawn at random: the numbers mean nothing, the way to them is the real one."""
    made = []
    original = pytorch_fid_inception._inception_v3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pytorch_fid_inception, "_inception_v3", lambda **options: made.append(original(**options)) or made[0])
        patch.setattr(pytorch_fid_inception, "load_state_dict_from_url", lambda *_, **__: made[0].state_dict())
        network = pytorch_fid_inception.fid_inception_v3()
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, generator=generator)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(network.state_dict(), path)
    return path
