import json
import unicodedata
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from data.folder import load_folder
from data.listing import ImagePaths
from data.pairs import PARTS, PairLoader, epoch_pairs, load_holdout, save_holdout, split_holdout
from utils.errors import UserError

counts = st.integers(1, 40)


@given(n_real=counts, n_fake=counts, epoch=st.integers(0, 50), seed=st.integers(0, 2**31 - 1))
def test_an_epoch_shows_each_fake_once(n_real, n_fake, epoch, seed):
    pairs = epoch_pairs(n_real, n_fake, epoch, seed)
    assert pairs.dtype == torch.int64 and pairs.shape == (n_fake, 2)
    assert sorted(pairs[:, 1].tolist()) == list(range(n_fake))
    assert pairs[:, 0].min() >= 0 and pairs[:, 0].max() < n_real
    assert torch.equal(pairs, epoch_pairs(n_real, n_fake, epoch, seed))


@given(n_real=counts, n_fake=counts, epochs=st.integers(1, 8))
def test_every_real_is_used_equally_often(n_real, n_fake, epochs):
    used = torch.cat([epoch_pairs(n_real, n_fake, epoch, 5)[:, 0] for epoch in range(epochs)]).bincount(minlength=n_real)
    assert used.max() - used.min() <= 1


def test_order_depends_on_epoch_and_seed_and_sides_are_independent():
    base = epoch_pairs(50, 50, 0, 1)
    for other in (epoch_pairs(50, 50, 1, 1), epoch_pairs(50, 50, 0, 2)):
        assert (base[:, 0] == other[:, 0]).sum() < 10 and (base[:, 1] == other[:, 1]).sum() < 10
    assert (base[:, 0] == base[:, 1]).sum() < 10
    with pytest.raises(ValueError, match="at least one"):
        epoch_pairs(0, 3, 0, 1)


@pytest.fixture
def loaders(tmp_path):
    for side, count in (("real", 5), ("fake", 7)):
        (tmp_path / side).mkdir()
        for number in range(count):
            value = number * 10 + 5 * (side == "fake")
            Image.new("RGB", (16, 16), (value, value, value)).save(tmp_path / side / f"{number}.png")
    folders = [load_folder(tmp_path / side, 16)[0] for side in ("real", "fake")]
    return lambda **options: PairLoader(*folders, batch_size=3, seed=4, **options)


def test_batches_follow_the_pairs(loaders):
    loader = loaders()
    batches = list(loader.batches(2))
    assert loader.steps_per_epoch == len(batches) == 3 and [len(real) for real, _ in batches] == [3, 3, 1]
    pairs = epoch_pairs(5, 7, 2, 4)
    reals, fakes = (torch.cat(side)[:, 0, 0, 0] * 255 for side in zip(*batches, strict=True))
    assert (reals / 10).round().long().tolist() == pairs[:, 0].tolist()
    assert ((fakes - 5) / 10).round().long().tolist() == pairs[:, 1].tolist()


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_batches_resume_anywhere_with_any_number_of_workers(loaders, num_workers):
    expected = list(loaders().batches(1))
    for start in range(4):
        got = list(loaders(num_workers=num_workers).batches(1, start))
        assert len(got) == 3 - start
        for (real, fake), (real_expected, fake_expected) in zip(got, expected[start:], strict=True):
            assert torch.equal(real, real_expected) and torch.equal(fake, fake_expected)


def test_a_reader_may_stop_early_and_errors_reach_it(loaders):
    loader = loaders(num_workers=2)
    assert next(iter(loader.batches(0)))[0].shape == (3, 3, 16, 16)
    loader.fake.paths[3].unlink()
    with pytest.raises(UserError, match=r"3\.png"):
        list(loader.batches(0))


def paths(side, stems, suffix="png"):
    return [Path("set") / side / f"{stem}.{suffix}" for stem in stems]


@given(
    n_shared=st.integers(0, 15),
    n_real=st.integers(0, 15),
    n_fake=st.integers(0, 15),
    fraction=st.floats(0.1, 0.6),
    seed=st.integers(0, 9),
)
def test_a_split_loses_nothing_and_keeps_shared_names_together(n_shared, n_real, n_fake, fraction, seed):
    real = paths("real", [f"s{i}" for i in range(n_shared)] + [f"r{i}" for i in range(n_real)])
    fake = paths("fake", [f"s{i}" for i in range(n_shared)] + [f"f{i}" for i in range(n_fake)], "jpg")
    assume(min(len(real), len(fake)) >= 4)
    split = split_holdout(real, fake, fraction, seed)
    assert split == split_holdout(real, fake, fraction, seed) and tuple(split) == PARTS
    for side, given_paths in (("real", real), ("fake", fake)):
        held, kept = split[f"holdout_{side}"], split[f"train_{side}"]
        assert sorted([*held, *kept]) == sorted(given_paths) and held and kept
        assert abs(len(held) - fraction * len(given_paths)) <= 1
    stems = [{path.stem for path in split[f"holdout_{side}"]} for side in ("real", "fake")]
    assert {s for s in stems[0] if s[0] == "s"} == {s for s in stems[1] if s[0] == "s"}


def test_split_follows_the_seed_and_zero_holds_nothing_out():
    real, fake = paths("real", range(30)), paths("fake", range(30))
    assert split_holdout(real, fake, 0.3, 0)["holdout_real"] != split_holdout(real, fake, 0.3, 1)["holdout_real"]
    whole = split_holdout(real, fake, 0.0, 0)
    assert (
        whole["train_real"] == real
        and whole["train_fake"] == fake
        and not any(len(whole[f"holdout_{side}"]) for side in ("real", "fake"))
    )


def test_a_small_share_holds_one_image_out_and_all_are_in_the_order_given():
    split = split_holdout(paths("real", "abcd"), paths("fake", "wxyz"), 0.01, 0)
    assert [len(split[part]) for part in PARTS] == [3, 3, 1, 1]
    real, fake = paths("real", range(100, 164)), paths("fake", range(200, 264))
    for part in split_holdout(real, fake, 0.25, 0).values():
        assert list(part) == sorted(part) and len(part) in (16, 48)


def test_two_files_of_one_name_stay_together():
    real = paths("real", range(8)) + paths("real", range(8), "jpg")
    split = split_holdout(real, paths("fake", "abcd"), 0.25, 0)
    held = [path.stem for path in split["holdout_real"]]
    assert len(held) == 4 and all(held.count(stem) == 2 for stem in held)


def test_subfolders_are_part_of_the_name():
    real = [Path("set/real") / sub / f"{i}.png" for sub in "ab" for i in range(10)]
    fake = [Path("set/fake") / sub / f"{i}.png" for sub in "ab" for i in range(10)]
    split = split_holdout(real, fake, 0.2, 0)
    names = [[path.relative_to(f"set/{side}") for path in split[f"holdout_{side}"]] for side in ("real", "fake")]
    assert len(names[0]) == 4 and names[0] == names[1]


def test_too_few_images_to_hold_out():
    with pytest.raises(UserError, match=r"--holdout 0\.5 leaves no real image"):
        split_holdout(paths("real", "a"), paths("fake", "bcde"), 0.5, 0)


def test_a_manifest_brings_the_split_back(tmp_path):
    real, fake = ([tmp_path / path for path in paths(side, range(10))] for side in ("real", "fake"))
    split = split_holdout(real, fake, 0.2, 1)
    save_holdout(tmp_path / "images.json", split, 0.2, 1)
    assert load_holdout(tmp_path / "images.json", real, fake) == split
    stored = json.loads((tmp_path / "images.json").read_text())
    assert stored["counts"] == {"train_real": 8, "train_fake": 8, "holdout_real": 2, "holdout_fake": 2}
    assert stored["holdout_real"] == [path.name for path in split["holdout_real"]]
    with pytest.raises(UserError, match=r"other fake images: 0\.png is no longer there"):
        load_holdout(tmp_path / "images.json", real, fake[1:])
    with pytest.raises(UserError, match=r"other real images: 77\.png is not in it"):
        load_holdout(tmp_path / "images.json", [*real, tmp_path / "set/real/77.png"], fake)
    for content, told in (
        ("[1, 2]", "holds no JSON object; it says which images were held out"),
        ("{}", "no list of held-out images"),
        *((json.dumps(stored | {"bytes": wrong}), "no list of held-out images") for wrong in (None, [], 5, {"real": 1})),
    ):
        (tmp_path / "images.json").write_text(content)
        with pytest.raises(UserError, match=told):
            load_holdout(tmp_path / "images.json", real, fake)


def test_a_split_without_holdout_is_kept_too(tmp_path):
    real, fake = paths("real", range(3)), paths("fake", range(3))
    split = split_holdout(real, fake, 0.0, 0)
    save_holdout(tmp_path / "images.json", split, 0.0, 0)
    assert load_holdout(tmp_path / "images.json", real, fake) == split


KEYS = {
    "a folder that one side has more": ([f"faces/{i:03}" for i in range(20)], [*(f"faces/{i:03}" for i in range(20)), "cars/000"]),
    "a folder on one side": ([f"{i:03}" for i in range(20)], [f"faces/{i:03}" for i in range(20)]),
    "words that differ": ([f"{i}_real_{i:03}" for i in range(20)], [f"{i}-fake-{i:03}" for i in range(20)]),
    "folders joined to names": ([f"{'ab'[i % 2]}/{i:03}" for i in range(20)], [f"{'ab'[i % 2]}_{i:03}" for i in range(20)]),
}


@pytest.mark.parametrize("name", KEYS)
def test_scenes_stay_together_however_their_folders_are_named(name):
    """Of the 20 reals, whose fakes have the same numbers in (the last folder of) their names."""
    split = split_holdout(*(ImagePaths("given", [f"{key}.png" for key in keys]) for keys in KEYS[name]), 0.25, 0)
    held, kept = ({path[-7:] for path in split[f"{part}_fake"].names if "cars" not in path} for part in ("holdout", "train"))
    assert len(split["holdout_real"]) == 5 and {path[-7:] for path in split["holdout_real"].names} == held and not held & kept


def test_other_contents_under_the_same_names_are_told(tmp_path):
    paths = {side: [tmp_path / side / f"{index}.png" for index in range(3)] for side in ("real", "fake")}
    for path in paths["real"] + paths["fake"]:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"1234")
    save_holdout(tmp_path / "images.json", split_holdout(*paths.values(), 0.0, 0), 0.0, 0)
    told = []
    load_holdout(tmp_path / "images.json", *paths.values(), told.append)
    assert told == []
    paths["fake"][1].write_bytes(b"12345")
    load_holdout(tmp_path / "images.json", *paths.values(), told.append)
    assert len(told) == 1 and "the fake images are other files than when the run began" in told[0]
    for side in paths:
        paths[side][1].write_bytes(b"123")
    load_holdout(tmp_path / "images.json", *paths.values(), told.append)
    assert [text.split()[1] for text in told[1:]] == ["real", "fake"]


def test_a_split_is_the_same_in_every_process():
    """And in every version: a run goes on with the images it held out; sets of names have another order in each process."""
    sides = [ImagePaths(f"set/{own}", [f"{key}{i:02d}.png" for key in ("s", own) for i in range(12)]) for own in "rf"]
    split = split_holdout(*sides, 0.25, 3)
    assert split["holdout_real"].names == ["s02.png", "s07.png", "s09.png", "r01.png", "r06.png", "r10.png"]
    assert split["holdout_fake"].names == ["s02.png", "s07.png", "s09.png", "f05.png", "f07.png", "f09.png"]


def test_names_in_either_unicode_form_are_one_scene():
    names = [f"\u00e9{number}.png" for number in range(12)]
    sides = [ImagePaths("given", [unicodedata.normalize(form, name) for name in names]) for form in ("NFC", "NFD")]
    held = [
        [unicodedata.normalize("NFC", name) for name in part.names] for part in list(split_holdout(*sides, 0.25, 0).values())[2:]
    ]
    assert len(held[0]) == 3 and held[0] == held[1]
