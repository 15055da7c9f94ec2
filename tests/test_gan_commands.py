"""gan.py from the command line: every sub-command end to end at tiny size."""

import csv
import io
import json
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from small import contents, holding, told
from torchvision.utils import make_grid

import gan_commands.finetune as finetune_module
import gan_commands.invert as invert_module
import gan_commands.setups as setups_module
import gan_commands.spectrum as spectrum_module
import gan_commands.train as train_module
from gan import main
from gan_commands.common import DETECTOR, GRID, INVERT, JUDGED, MONITOR, SAMPLE, draw, load_run, weights_digest
from gan_commands.detection import SavedDetector
from gan_commands.options import parse_gan
from gan_commands.pairs import open_pairs
from gan_commands.setups import PUBLISHED_FID, score_and_features
from models.classical_detectors import fit_classical
from models.detectors import FAKE, Detector
from models.gan import SETUPS, generate, seeded_latents
from models.gan_losses import fourier_dissimilarity
from models.gan_training import GanConfig, GanTrainer, restore_generator
from utils.ahead import read_ahead
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.decay import decay_features
from utils.distributed import Processes
from utils.errors import UserError
from utils.files import delete
from utils.pictures import to_uint8

pytestmark = pytest.mark.usefixtures("quick_figures")
SMALL = "--size 16 --dim 4 --latent_dim 8 --batch_size 8 --monitor lfd --monitor_samples 16 --log_frequency 1 --device cpu"
CPU = torch.device("cpu")


def run(text):
    """One command line; the paths in these tests hold no blanks."""
    main(text.split())


def refused(text, capsys):
    """The sentence a mistake ends with."""
    return told(main, text.split(), capsys)


def table(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def pixels(folder):
    return {path.name: np.asarray(Image.open(path)) for path in sorted(Path(folder).glob("*.png"))}


def photographs(folder, count=24, size=16):
    """Smooth pictures in two subfolders."""
    rng = np.random.default_rng(0)
    for index in range(count):
        path = Path(folder) / ("a" if index % 2 else "b") / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(path)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with photographs, a trained run and its pairs."""
    folder = tmp_path_factory.mktemp("gan")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        photographs("datasets/set/real")
        run(f"train --data set --dst base --adversarial lsgan --epochs 2 --lr 1e-3 {SMALL}")
        run("invert --dst base --data set --out pairs --steps 20 --threshold 4 --device cpu --batch_size 10")
        yield folder


@pytest.fixture(autouse=True)
def inside(workplace, monkeypatch):
    monkeypatch.chdir(workplace)


def test_train_leaves_a_complete_run():
    folder = Path("results/base")
    names = {path.name for path in folder.iterdir()}
    assert names >= {"options.json", "checkpoint.pt", "best.pt", "log.csv", "epochs.csv", "sample", "tensorboard"}
    log, epochs = table(folder / "log.csv"), table(folder / "epochs.csv")
    assert [int(row["step"]) for row in log] == [1, 2, 3, 4, 5, 6]
    assert set(log[0]) == {"step", "epoch", "discriminator", "generator"}
    assert [row["epoch"] for row in epochs] == ["1", "2"]
    assert len(list((folder / "sample").iterdir())) == 2
    best = load_checkpoint(folder / "best.pt", "gan")
    scores = [float(row["lfd"]) for row in epochs]
    assert best["progress"]["best"] == pytest.approx(min(scores))
    assert best["progress"]["epoch"] == 1 + int(np.argmin(scores))
    assert json.loads((folder / "options.json").read_text())["monitor"] == "lfd"


def test_damaged_runs_are_named(capsys):
    train = f"train --data set --dst base --adversarial lsgan --epochs 2 --lr 1e-3 --resume {SMALL}"
    sample = "sample --dst base --n 2 --out damaged --device cpu"
    Path("no_pairs").mkdir()
    for folder, what in (("no_pairs", "holds no pairs"), ("nowhere", "does not exist")):
        told = refused(f"study truncation --pairs {folder} --dst no", capsys)
        assert f"{folder} {what}; give the folder that gan.py invert wrote" in told
    finetune = "finetune --generator base --pairs pairs --dst damaged --epochs 1 --n 20 --batch_size 8 --device cpu"
    content = load_checkpoint("results/base/checkpoint.pt", "gan")
    progress, optimiser = content["progress"], content["generator_optimiser"]
    flat = {number: state | {"exp_avg": torch.zeros(7)} for number, state in optimiser["state"].items()}
    every = [{}, content | {"generator": {}}, content | {"steps": "x"}, {k: v for k, v in content.items() if k != "progress"}]
    resumed = [content | {part: {}} for part in ("discriminator", "generator_optimiser", "random")]
    resumed += [content | {"schedulers": []}, content | {"schedulers": [{}, {}]}, content | {"progress": progress | {"best": "x"}}]
    resumed += [content | {"generator_optimiser": optimiser | {"state": flat}}]
    given = [content | {"discriminator": {}}, content | {"config": content["config"] | {"dim": 8}}]
    cases = [("checkpoint", train, [*every, *resumed]), ("best", sample, [*every, given[1]]), ("best", finetune, [*every, *given])]
    for name, command, damaged in cases:
        path = Path(f"results/base/{name}.pt")
        whole = path.read_bytes()
        for number, wrong in enumerate(damaged):
            save_checkpoint(path, "gan", wrong)
            said = refused(command, capsys).strip().splitlines()[-1]
            assert f"error: {path} " in said and ("is damaged or" in said or "with which options" in said), (command, number)
        path.write_bytes(whole[: len(whole) // 2])
        assert f"{path} is not a checkpoint" in refused(command, capsys)
        path.write_bytes(whole)
    assert not Path("results/damaged").exists() and not Path("damaged").exists()
    run(train)


def test_a_study_stops_where_its_last_epoch_is_interrupted(monkeypatch, capsys):
    command = "study setups --data set --dst halted_study --setups BASELINE,N.1.3 --adversarial lsgan --epochs 1 --n 20 --repeats 1"
    command += f" --train_fraction 0.3 --detectors knn {SMALL}"
    end_epoch = train_module.Run.end_epoch

    def interrupted(self, monitor, log):
        end_epoch(self, monitor, log)
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(train_module.Run, "end_epoch", interrupted)
        with pytest.raises(SystemExit) as stop:
            run(command)
    assert stop.value.code == 130 and "the same command with --resume goes on" in capsys.readouterr().err
    assert not Path("results/halted_study/N.1.3").exists()
    monkeypatch.setattr(train_module, "StopRequest", StopAfter)
    for overwrite, words in (("", "and --resume\n"), (" --overwrite", "and --resume instead of --overwrite\n")):
        StopAfter.count = 1
        with pytest.raises(SystemExit) as stop:
            run(command.replace("halted_study", "halted_study_early") + overwrite)
        assert stop.value.code == 130 and f"stopped after step 2; go on with the same command {words}" in capsys.readouterr().out
    StopAfter.count = 10**9
    run(command + " --resume")
    assert Path("results/halted_study/table.md").is_file()


@pytest.mark.parametrize("command", ["study setups --data set --n 20", "sample", "invert --data set"])
def test_what_is_interrupted_before_it_begins_is_still_another_s(command, monkeypatch, capsys):
    """Nothing of it is deleted yet, so --overwrite is still needed."""
    name = command.split()[0]
    place = "results/early" if name == "study" else "early"
    first = Path(place, {"study": "options.json", "sample": ".sample.json", "invert": "pairs.json"}[name])
    first.parent.mkdir(parents=True, exist_ok=True)
    first.write_text("{}")
    where = "--dst early" if name == "study" else "--dst base --out early"
    begins = {
        "study": "gan_commands.setups.check_run_folder",
        "sample": "gan_commands.sample.load_run",
        "invert": "gan_commands.invert.load_run",
    }

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(begins[name], stop)
    with pytest.raises(SystemExit) as ended:
        run(f"{command} {where} --overwrite --device cpu")
    assert (
        ended.value.code == 130
        and f"in {place} is whole, and the same command with --overwrite starts anew" in capsys.readouterr().err
    )


def test_an_interrupted_inversion_goes_on(monkeypatch, capsys):
    command = "invert --dst base --data set --n 5 --steps 2 --threshold 4 --device cpu --out"
    write = invert_module.write_triplet

    def stopping(folder, name, *triplet):
        if len(list((folder / "real").rglob("*.png"))) == 3:
            signal.raise_signal(signal.SIGTERM)
        write(folder, name, *triplet)

    with monkeypatch.context() as patch:
        patch.setattr(invert_module, "write_triplet", stopping)
        with pytest.raises(SystemExit) as stop:
            run(f"{command} half --batch_size 2")
    assert stop.value.code == 130
    assert "in half is whole, and the same command goes on" in capsys.readouterr().err
    with pytest.raises(UserError, match="was interrupted"):
        open_pairs("half")
    assert "half/real exists already" in refused(f"{command} half --steps 3", capsys)
    picture = min(Path("datasets/set").rglob("*.png"))
    content = picture.read_bytes()
    Image.open(picture).save(picture, compress_level=0)  # another file of its name
    assert "half/real exists already" in refused(f"{command} half", capsys)
    picture.write_bytes(content)
    inverted, invert_batch = [], invert_module.invert_batch

    def counting(generator, real_image, *arguments):
        inverted.append(len(real_image))
        return invert_batch(generator, real_image, *arguments)

    monkeypatch.setattr(invert_module, "invert_batch", counting)
    run(f"{command} half --batch_size 3")
    assert inverted == [3]  # the first two were done
    assert "half/real exists already" in refused(f"{command} half", capsys)
    run(f"{command} whole --batch_size 2")
    one, other = (json.loads(Path(folder, "pairs.json").read_text()) for folder in ("half", "whole"))
    assert {name: one[name] for name in ("kept", "dropped")} == {name: other[name] for name in ("kept", "dropped")}
    assert Path("half/pairs.csv").read_text() == Path("whole/pairs.csv").read_text()
    for mine, theirs in zip(open_pairs("half"), open_pairs("whole"), strict=True):
        assert len(mine) == len(theirs) == 5
        assert all((mine[index] - theirs[index]).abs().max() <= 1 / 255 + 1e-6 for index in range(5))


def test_inputs_with_a_sign_in_their_name():
    Path("k=1").mkdir()
    shutil.copy(min(Path("datasets/set").rglob("*.png")), "k=1/one.png")
    assert spectrum_module.label_of("k=1") == ("k=1", "k=1") and spectrum_module.label_of("k=2") == ("k", "2")


def test_an_interrupted_inversion_does_not_go_on_with_images_of_other_names(capsys):
    command = "invert --dst base --data set --n 3 --steps 1 --threshold 9 --device cpu --out names"
    run(command)
    made = json.loads(Path("names/pairs.json").read_text())
    Path("names/pairs.json").write_text(json.dumps({name: made[name] for name in ("weights", "bytes", "options")}))
    picture = min(Path("datasets/set").rglob("*.png"))
    renamed = picture.rename(picture.with_name("000_first.png"))
    assert "names was begun with other images than are in set now" in refused(command, capsys)
    renamed.rename(picture)
    run(command)


def test_runs_are_known_by_their_weights_and_not_by_name(capsys):
    run("sample --dst base --n 2 --out renamed --device cpu")
    shutil.copytree("results/base", "results/copied")
    first = contents("renamed")
    run("sample --dst copied --n 3 --out renamed --device cpu")
    again = contents("renamed")
    assert len(again) == len(first) + 1 and all(again[path] == first[path] for path in first if path.suffix == ".png")
    assert "another generator or seed" in refused("sample --dst base --n 2 --seed 1 --out renamed --device cpu", capsys)
    invert = "invert --data set --n 3 --steps 1 --threshold 9 --device cpu"
    run(f"{invert} --dst base --out begun")
    made = json.loads(Path("begun/pairs.json").read_text())
    Path("begun/pairs.json").write_text(json.dumps({name: made[name] for name in ("weights", "bytes", "options")}))
    Path("begun").rename("moved")
    content = load_checkpoint("results/copied/checkpoint.pt", "gan")
    first = next(iter(content["generator"]))
    moved = content["generator"] | {first: content["generator"][first] + 0.01}
    save_checkpoint("results/copied/checkpoint.pt", "gan", content | {"generator": moved})
    assert "moved/real exists already" in refused(f"{invert} --dst copied --checkpoint last --out moved", capsys)
    run(f"{invert} --dst copied --out moved")
    assert len(open_pairs("moved")[0]) == 3
    run(f"{invert} --dst copied --checkpoint last --out of_last")
    made = [json.loads(Path(folder, "pairs.json").read_text())["weights"] for folder in ("moved", "of_last")]
    assert made == [weights_digest(load_run("copied", which)) for which in ("best", "last")] and made[0] != made[1]
    finetune = "finetune --generator copied --pairs of_last --dst no --batch_size 3"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune_module, "FEWEST_PAIRS", 3)
        assert "of other weights" in refused(f"{finetune} --device cpu", capsys)
        checkpoint = finetune_module.open_inputs(parse_gan(f"{finetune} --checkpoint last".split())[1])[0]
    assert torch.equal(checkpoint["generator"][first], moved[first])


def test_names_of_runs_in_hints_can_be_pasted(capsys):
    said = told(main, ["sample", "--n", "3", "--out", "x", "--dst", "no run"], capsys)
    assert "results/no run holds no trained generator; train one with gan.py train --dst 'no run'" in said


def test_pairs_do_not_go_among_the_photographs_they_are_made_of(capsys):
    command = "invert --dst base --data set --n 2 --steps 1 --threshold 9 --device cpu --out datasets/"
    before = contents("datasets")
    for place in ("set/real", "set/real/a", "set/real/new"):
        assert "pairs would count as such" in refused(command + place, capsys)
    assert "datasets/set/real is not of gan.py invert" in refused(command + "set", capsys)
    assert contents("datasets") == before


def test_an_inversion_that_kept_nothing_is_begun_anew_with_other_options(capsys):
    command = "invert --dst base --data set --n 2 --steps 1 --device cpu --out meagre --threshold"
    run(f"{command} 0")
    assert "0 pairs kept, 2 dropped" in capsys.readouterr().out
    run(f"{command} 9")
    assert "2 pairs kept, 0 dropped" in capsys.readouterr().out


def test_rows_of_pairs_are_read_as_they_were_written(tmp_path):
    rows = [("a/1.png", 0.25, 1), ("a/2.png", 3.5, 0)]
    invert_module.write_csv(tmp_path / "pairs.csv", invert_module.COLUMNS, rows)
    assert invert_module._rows(tmp_path / "pairs.csv") == rows


def test_at_most_all_images_are_inverted(capsys):
    run("invert --dst base --data set --n 99 --steps 1 --device cpu --threshold 9 --out every")
    assert "24 pairs kept, 0 dropped" in capsys.readouterr().out


def test_an_inversion_deletes_nothing_that_is_not_its_own(capsys):
    command = "invert --dst base --data set --n 2 --steps 1 --threshold 9 --device cpu --out mine"
    Path("mine").mkdir()
    Path("mine/pairs.csv").write_text("of the user")
    for more in ("", " --overwrite"):
        assert "mine/pairs.csv is not of gan.py invert" in refused(command + more, capsys)
    assert Path("mine/pairs.csv").read_text() == "of the user"
    Path("mine/pairs.csv").unlink()
    run(command)
    Path("mine/pairs.json").write_text('{"options": 3}')
    assert "mine/real exists already" in refused(command, capsys)
    for damaged in ("[]", "{"):
        Path("mine/pairs.json").write_text(damaged)
        assert "mine/pairs.json" in refused(command, capsys)
        assert "mine/pairs.json" in refused("finetune --generator base --pairs mine --epochs 1 --dst no --device cpu", capsys)
        assert "delete its folder" in refused(f"{command} --overwrite", capsys)
    Path("mine/pairs.json").write_text('{"a": "b"}')  # somebody else's
    assert "is not of gan.py invert" in refused(f"{command} --overwrite", capsys)
    assert len(list(Path("mine/real").rglob("*.png"))) == 2
    for name in ("real", "fake", "latent"):
        shutil.rmtree(Path("mine") / name)  # as an interrupted --overwrite leaves it
    Path("mine/pairs.csv").unlink()
    run(command)
    assert len(open_pairs("mine")[0]) == 2


def test_pairs_that_an_interrupted_overwrite_left_do_not_pass_for_all(monkeypatch, capsys):
    command = "invert --dst base --data set --n 3 --steps 1 --threshold 9 --device cpu --out partial"
    run(command)

    def interrupted(path):
        if path.name == "fake":
            raise KeyboardInterrupt
        return delete(path)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(invert_module, "delete", interrupted)
        run(f"{command} --overwrite")
    assert Path("partial/fake").is_dir() and not Path("partial/real").exists()
    assert "was interrupted" in refused("finetune --generator base --pairs partial --dst no --device cpu", capsys)
    run(f"{command} --overwrite")
    assert len(open_pairs("partial")[0]) == 3


def test_a_spoken_of_command_is_the_sub_command(capsys):
    assert "python gan.py study spectrum --help" in refused("study spectrum --real set --inputs base --dst x --nonsense 3", capsys)


def test_a_score_and_features_are_of_the_same_images():
    images, seen = torch.rand(5, 3, 16, 16), []
    monitor = SimpleNamespace(summary=lambda batches: seen.extend(batches) or "summary", distance=lambda summary: (summary, 7))
    score, features = score_and_features(monitor, iter(images.split(2)))
    assert score == ("summary", 7) and torch.equal(torch.cat(seen), images)
    assert np.array_equal(features, decay_features(images).numpy())


def test_shards_are_inverted_as_the_folder_they_were_made_of(capsys):
    run("shard --data set --out shards/a --size 16 --per_shard 12")
    command = "invert --dst base --n 4 --steps 1 --threshold 4 --device cpu"
    run(f"{command} --data set --out plain")
    run(f"{command} --data shards/a-{{000000..000001}}.tar --out packed")
    assert Path("plain/pairs.csv").read_text() == Path("packed/pairs.csv").read_text()
    assert "that it holds: 'shards/a-{000000..000001}.tar'" in refused(f"{command} --data shards --out none", capsys)


def test_run_folders_are_kept_unless_told(capsys):
    assert "exists already" in refused(f"train --data set --dst base --epochs 1 {SMALL}", capsys)
    assert "--setup is N.1.5" in refused(
        f"train --data set --dst base --adversarial lsgan --epochs 2 --lr 1e-3 --setup N.1.5 --resume {SMALL}", capsys
    )
    assert "nothing to resume" in refused(f"train --data set --dst new --resume {SMALL}", capsys)
    assert "neither datasets/nothing" in refused(f"train --data nothing --dst new {SMALL}", capsys)
    assert "power of two" in refused(f"train --data set --dst new {SMALL} --size 48", capsys)


def test_overwriting_deletes_nothing_that_is_read(capsys, tmp_path):
    """Photographs, pairs, a detector or shards that lie where the result goes."""
    photographs("results/own/set")
    before = contents("results/own")
    assert "would delete results/own/set" in refused(
        f"train --data results/own/set --dst own --overwrite --epochs 1 {SMALL}", capsys
    )
    study = f"study setups --data set --dst own --overwrite --setups BASELINE --epochs 1 --n 20 {SMALL}"
    assert "would delete results/own/set" in refused(study.replace("--data set", "--data results/own/set"), capsys)
    assert "would delete results/own/set" in refused(f"{study} --reference results/own/set", capsys)
    save_checkpoint(Path("results/own/detector.pt"), "detector", {})
    finetune = "finetune --generator base --dst own --overwrite --pairs pairs --detector results/own/detector.pt --device cpu"
    assert "would delete results/own/detector.pt" in refused(finetune, capsys)
    assert contents("results/own") == before | {Path("results/own/detector.pt"): Path("results/own/detector.pt").read_bytes()}

    run("invert --dst base --data set --out datasets/own --steps 5 --threshold 9 --device cpu")
    before = contents("datasets/own")
    for data, words in (
        ("own", "which this command reads"),
        ("datasets/own/real/a", "which this command reads"),
        ("datasets", "holds real/ and fake/"),
    ):
        inverting = f"invert --dst base --data {data} --out datasets/own --steps 5 --threshold 9 --overwrite --device cpu"
        assert words in refused(inverting, capsys)
    assert contents("datasets/own") == before


def test_a_study_is_checked_before_the_old_one_is_deleted(capsys):
    Path("results/old").mkdir()
    Path("results/old/table.json").write_text("{}")
    study = f"study setups --data set --dst old --overwrite --setups BASELINE --epochs 1 --n 20 {SMALL}"
    assert "fewer than --batch_size 64" in refused(f"{study} --batch_size 64", capsys)
    photographs("few", count=5)
    assert "5 images in few leave none to judge" in refused(f"{study} --reference few", capsys)
    assert Path("results/old/table.json").is_file()


def test_samples_and_pairs_are_filled_by_one_process_at_a_time(capsys):
    holder = "import sys; from utils.locks import hold; hold(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    for name, command in (("out/busy", "sample --dst base --n 2"), ("out/busy_pairs", "invert --dst base --data set --n 2")):
        Path(name).mkdir(parents=True)
        with holding(holder, Path(name).absolute()) as other:
            assert other.stdout.readline() == "held\n"
            told = refused(f"{command} --out {name} --overwrite --device cpu", capsys)
            assert f"another process is filling {name}; wait for it, stop it, or choose another --out" in told


def test_samples_of_another_generator_are_not_continued(capsys):
    run("sample --dst base --n 2 --out out/mixed --device cpu")
    checkpoint = Path("results/base/best.pt")
    whole, content = checkpoint.read_bytes(), load_checkpoint(checkpoint, "gan")
    first = next(iter(content["generator"]))
    save_checkpoint(checkpoint, "gan", content | {"generator": content["generator"] | {first: content["generator"][first] + 1}})
    assert "samples of another generator" in refused("sample --dst base --n 4 --out out/mixed --device cpu", capsys)
    checkpoint.write_bytes(whole)
    run("sample --dst base --n 4 --out out/mixed --device cpu")


def test_a_training_that_diverges_keeps_no_broken_epoch(capsys):
    command = f"train --data set --dst diverged --adversarial lsgan --epochs 6 --lr 1e20 --patience 9 {SMALL} --log_frequency 1000"
    assert "of the checkpoint is not finite at step 3; try a lower --lr" in refused(command, capsys)
    assert not list(Path("results/diverged").glob("*.pt"))


def test_what_a_run_that_diverges_keeps_is_told():
    training = train_module.Run(parse_gan(f"train --data set --dst lost {SMALL}".split())[1], {}, Processes(CPU))
    with pytest.raises(UserError, match="not finite") as told:
        training.check_finite({"lfd": float("nan")})
    assert "the last epoch is kept" not in str(told.value)
    training.folder.mkdir()
    (training.folder / "checkpoint.pt").touch()
    with pytest.raises(UserError, match="the last epoch is kept"):
        training.check_finite({"lfd": float("nan")})


def test_networks_that_are_not_finite_replace_no_checkpoint():
    """Nor are they scored, which would fail in each measure's own way."""
    training = train_module.Run(parse_gan(f"train --data set --dst diverging {SMALL}".split())[1], {}, Processes(CPU))
    training.save()
    kept = (training.folder / "checkpoint.pt").read_bytes()
    torch.nn.init.constant_(next(training.trainer.discriminator.parameters()), -torch.inf)
    for ends in (training.save, lambda: training.end_epoch(None, None)):
        with pytest.raises(UserError, match=r"discriminator.* is not finite at step 0; the last epoch is kept"):
            ends()
    assert (training.folder / "checkpoint.pt").read_bytes() == kept
    start = load_run("base")
    options = parse_gan(["finetune", "--generator", "base", "--pairs", "pairs", "--dst", "diverging_too"])[1]
    tuning = finetune_module.FinetuneRun(options, start, 2, "", "", "", CPU)
    torch.nn.init.constant_(next(tuning.trainer.generator.parameters()), torch.nan)
    with pytest.raises(UserError, match=r"generator.* is not finite"):
        tuning.end_epoch(None, None)


def test_options_that_would_do_nothing_are_refused(capsys):
    train = f"train --data set --dst nothing --epochs 1 {SMALL}"
    assert "never be trained" in refused(f"{train} --critic_steps 4", capsys)
    assert "leave it out with lfd" in refused(f"{train} --inception_weights some.pth", capsys)
    assert "--penalty_weight: has no effect with --penalty none" in refused(f"{train} --penalty_weight 3", capsys)
    assert "at least 16" in refused("study setups --data set --dst nothing --size 8", capsys)
    told = refused("study setups --data set --dst nothing --setups N.1.5", capsys)
    assert "BASELINE is needed" in told and "python gan.py study setups --help" in told
    assert "names a folder" in refused("shard --data set --out shards/ --size 16", capsys)
    run("invert --dst base --data set --out none --steps 1 --threshold 0.0001 --n 8 --device cpu")
    assert "no pair is good enough" in capsys.readouterr().err


class StopAfter:
    """Stands in for `StopRequest`: asks to stop once it was looked at `count` times."""

    count = 10**9

    def __init__(self, patient=False):
        assert not patient  # one process: a second Ctrl-C interrupts at once

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    @property
    def asked(self):
        StopAfter.count -= 1
        return StopAfter.count < 0


def kill_before_saving(command, trained, monkeypatch):
    """Run a command up to its first checkpoint, of which nothing is kept."""

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(trained, "save", killed)
        run(command)


@pytest.mark.parametrize("steps_before_stop", [1, 3, 4])
def test_resumed_run_is_bit_identical(steps_before_stop, monkeypatch):
    """Stopped in the middle of an epoch, at its end before it is scored, and in the second epoch."""
    monkeypatch.setattr(train_module, "StopRequest", StopAfter)
    command = (
        "train --data set --adversarial wgan-gp --critic_steps 2 --epochs 2 --ema 0.9 --spectral_loss 0.1 --setup B.1.3 " + SMALL
    )
    StopAfter.count = 10**9
    run(command + " --overwrite --dst straight")
    StopAfter.count = steps_before_stop - 1
    with pytest.raises(SystemExit) as stop:
        run(command + " --overwrite --dst halted")
    assert stop.value.code == 130
    assert load_checkpoint("results/halted/checkpoint.pt", "gan")["steps"] == steps_before_stop
    StopAfter.count = 10**9
    kill_before_saving(command + " --resume --dst halted", train_module.Run, monkeypatch)
    run(command + " --resume --dst halted")
    straight, halted = (load_checkpoint(f"results/{name}/checkpoint.pt", "gan") for name in ("straight", "halted"))
    for part in ("generator", "average", "discriminator"):
        assert all(torch.equal(value, halted[part][name]) for name, value in straight[part].items())
    assert straight["progress"] == halted["progress"]
    for name in ("log.csv", "epochs.csv"):
        assert Path(f"results/straight/{name}").read_text() == Path(f"results/halted/{name}").read_text()
    run(command + " --resume --dst halted")  # a finished run has nothing left to do
    assert Path("results/straight/log.csv").read_text() == Path("results/halted/log.csv").read_text()


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: Image.new("RGB", (16, 16)).save(path)])
def test_other_images_are_noticed_by_a_run_that_goes_on(change, monkeypatch, capsys):
    monkeypatch.setattr(train_module, "StopRequest", StopAfter)
    shutil.copytree("datasets/set/real", "datasets/changing")
    StopAfter.count = 0
    command = f"train --data changing --epochs 1 --dst changing {SMALL}"
    with pytest.raises(SystemExit):
        run(command + " --overwrite")
    StopAfter.count = 10**9
    change(next(Path("datasets/changing").rglob("*.png")))
    told = refused(command + " --resume", capsys)
    shutil.rmtree("datasets/changing")
    assert "are others than when changing began; put those back" in told


def test_bad_scores_lower_the_rate_and_end_the_run(monkeypatch, capsys):
    monkeypatch.setattr(train_module.GanMonitor, "score", lambda self, generator: 1.0)
    run(f"train --data set --dst stale --overwrite --epochs 30 --patience 4 {SMALL}")
    epochs = table("results/stale/epochs.csv")
    assert len(epochs) == 5  # the first is the best, then four without a better one
    rates = [float(row["lr"]) for row in epochs]
    factor = (1e-6 / 1e-4) ** (1 / 30)
    assert rates == pytest.approx([1e-4, 1e-4, 1e-4, 1e-4 * factor, 1e-4 * factor], rel=1e-6)
    assert load_checkpoint("results/stale/best.pt", "gan")["progress"]["epoch"] == 1
    assert "done after 5 epochs of 30: 4 in a row were no better (--patience); best lfd 1 in epoch 1;" in capsys.readouterr().out


def test_any_lower_score_keeps_the_rate(monkeypatch):
    scores = iter(1 - 1e-5 * number for number in range(30))
    monkeypatch.setattr(train_module.GanMonitor, "score", lambda self, generator: next(scores))
    run(f"train --data set --dst better --epochs 5 {SMALL}")
    assert [float(row["lr"]) for row in table("results/better/epochs.csv")] == [1e-4] * 5


def test_an_epoch_is_scored_and_shown_by_what_is_drawn_from(monkeypatch):
    """The moving average where there is one; all epochs show the same latents."""
    options = parse_gan(f"train --data set --dst shown --ema 0.5 --seed 3 {SMALL}".split())[1]
    training, shown, scored = train_module.Run(options, {}, Processes(CPU)), [], []
    log = SimpleNamespace(write=lambda *_, **__: None, add_image=lambda name, picture, step: shown.append(picture))
    monitor = SimpleNamespace(kind="lfd", score=lambda generator: scored.append(generator) or 1.0)
    monkeypatch.setattr(training, "save", lambda name: None)
    latent = seeded_latents(range(train_module.GRID_IMAGES), 8, 3, GRID)
    for _ in range(2):
        training.trainer.step(torch.rand(4, 3, 16, 16))
        training.end_epoch(monitor, log)
        assert np.array_equal(shown[-1], to_uint8(make_grid(generate(training.trainer.average, latent), nrow=8)))
    assert scored == [training.trainer.average] * 2
    assert np.array_equal(np.asarray(Image.open("results/shown/sample/epoch_0002.png")), shown[1])


def test_what_is_read_before_a_training_names_the_monitor(monkeypatch):
    monkeypatch.setattr(train_module, "choose_monitor", lambda kind, weights: (kind or "fid", "here.pth"))
    words = SMALL.replace("--monitor lfd", "--critic_steps 3 --epochs 1").split()  # as many steps as there are
    options, weights, resumed, stream, _ = train_module.read_run(
        parse_gan(["train", "--data", "set", "--dst", "unread", *words])[1]
    )
    assert (options.monitor, weights, resumed, stream.steps_per_epoch) == ("fid", "here.pth", None, 3)


def test_published_defaults():
    for family, expected in {
        "gan": (1e-4, 1, 50, "none"),
        "lsgan": (1e-4, 1, 50, "none"),
        "wgan-gp": (2e-4, 5, 100, "zero"),
    }.items():
        options = parse_gan(f"train --data x --dst y --adversarial {family}".split())[1]
        assert (options.lr, options.critic_steps, options.epochs, options.penalty) == expected
        assert (options.batch_size, options.penalty_weight, options.monitor_samples, options.patience) == (64, 10, 10_000, 5)
    words = f"train --data x --dst y --adversarial {family} --critic_steps 2".split()
    assert parse_gan(words)[1].critic_steps == 2
    rates = {"": 1e-5, "--adv 0": 1e-4, "--lambda_fourier 0": 1e-6, "--adv 0 --lr 3e-3": 3e-3}
    for text, rate in rates.items():
        assert parse_gan(f"finetune --generator g --pairs p --dst y {text}".split())[1].lr == rate
    assert set(PUBLISHED_FID) == set(SETUPS)


def test_samples_do_not_depend_on_batch_or_history(capsys):
    run("sample --dst base --n 9 --out out/one --batch_size 1 --device cpu")
    run("sample --dst base --n 9 --out out/four --batch_size 4 --device cpu --num_workers 2")
    one, four = pixels("out/one"), pixels("out/four")
    assert list(one) == [f"{index:06d}.png" for index in range(9)]
    assert all(np.array_equal(one[name], four[name]) for name in one)
    Path("out/four/000003.png").unlink()
    untouched = Path("out/four/000004.png").stat().st_mtime_ns
    run("sample --dst base --n 12 --out out/four --device cpu")
    assert Path("out/four/000004.png").stat().st_mtime_ns == untouched
    assert len(pixels("out/four")) == 12
    assert np.array_equal(pixels("out/four")["000003.png"], one["000003.png"])
    Path("out/four/000003.png").write_bytes(b"")
    Path("out/four/000002.png").write_bytes(Path("out/one/000002.png").read_bytes()[:-30])
    run("sample --dst base --n 12 --out out/four --device cpu")
    assert all(np.array_equal(pixels("out/four")[name], one[name]) for name in one)
    began = Path("out/four/.sample.json").read_text()
    Path("out/four/.sample.json").write_text("")
    assert "with --overwrite" in refused("sample --dst base --n 12 --out out/four --device cpu", capsys)
    Path("out/four/.sample.json").write_text(began)
    drawn = torch.cat(list(draw(load_run("base"), 9, 42, CPU)))
    assert np.array_equal((drawn[8] * 255).byte().permute(1, 2, 0).numpy(), one["000008.png"])
    assert "another generator or seed" in refused("sample --dst base --n 3 --out out/one --seed 1", capsys)
    run("sample --dst base --n 3 --out out/one --seed 1 --overwrite --device cpu")
    other = pixels("out/one")
    assert len(other) == 3 and not np.array_equal(other["000000.png"], one["000000.png"])
    assert "lies in datasets/set/real, the photographs" in refused("sample --dst base --n 3 --out datasets/set/real/a", capsys)
    Path("out/foreign").mkdir()
    Path("out/foreign/mine.txt").touch()
    assert "did not write" in refused("sample --dst base --n 3 --out out/foreign --overwrite", capsys)
    Path("results/broken").mkdir()
    save_checkpoint("results/broken/checkpoint.pt", "gan", {"config": {"size": 16}})
    assert "broken/checkpoint.pt is damaged or" in refused("sample --dst broken --n 3 --out out/x --device cpu", capsys)
    Path("a_file").touch()
    assert "a_file is a file" in refused("sample --dst base --n 3 --out a_file --device cpu", capsys)
    assert "no trained generator" in refused("sample --dst nothing --n 3 --out out/x", capsys)


def test_inversion_writes_triplets_that_belong_together(capsys):
    rows = table("pairs/pairs.csv")
    assert len(rows) == 24 and {row["kept"] for row in rows} == {"1"}
    real, fake, latent = open_pairs("pairs")
    generator = restore_generator(load_run("base"))
    with torch.no_grad():
        signed = generator(latent)
    drawn = torch.stack([fake[index] for index in range(24)])
    assert (drawn - (signed + 1) / 2).abs().max() < 0.51 / 255 + 1e-5
    losses = {row["name"]: float(row["loss"]) for row in rows}
    names = [path.relative_to("pairs/real").as_posix() for path in real.paths]
    for index, name in enumerate(names):
        assert (signed[index] - (2 * real[index] - 1)).square().mean().item() == pytest.approx(losses[name], rel=1e-3)

    middle = sorted(losses.values())[11]
    run(f"invert --dst base --data set --out some --steps 20 --threshold {middle + 1e-4} --device cpu")
    summary = json.loads(Path("some/pairs.json").read_text())
    assert summary["kept"] == len(open_pairs("some")[0]) and summary["kept"] + summary["dropped"] == 24
    assert abs(summary["kept"] - 12) <= 1
    assert summary["median_loss"] == pytest.approx(np.median([float(row["loss"]) for row in table("some/pairs.csv")]))
    assert "exists already" in refused("invert --dst base --data set --out pairs --device cpu", capsys)
    run("invert --dst base --data set --out some --steps 1 --n 5 --threshold 4 --device cpu --overwrite")
    assert len(open_pairs("some")[0]) == 5


def dissimilarity_of(checkpoint, threshold, metric="cos"):
    real, _, latent = open_pairs("pairs")
    with torch.no_grad():
        fake = (restore_generator(checkpoint)(latent) + 1) / 2
    return fourier_dissimilarity(fake, torch.stack([real[index] for index in range(len(real))]), metric, threshold).item()


@pytest.mark.usefixtures("drawn_figures")
def test_fourier_finetuning_brings_the_spectra_closer():
    run(
        "finetune --generator base --pairs pairs --dst fourier --overwrite --adv 0 --threshold 2 --epochs 3 --lr 1e-3 --n 20 "
        "--batch_size 8 --detector logreg --device cpu"
    )
    folder = Path("results/fourier")
    assert {path.name for path in folder.iterdir()} >= {"losses.png", "detection.png", "samples.png", "log.csv", "epochs.csv"}
    before, after = load_run("base"), load_run("fourier")
    assert dissimilarity_of(after, 2) < dissimilarity_of(before, 2) - 1e-3
    assert all(torch.equal(value, after["discriminator"][name]) for name, value in before["discriminator"].items())
    statistics = [name for name in before["generator"] if "running" in name]
    assert statistics and all(torch.equal(before["generator"][name], after["generator"][name]) for name in statistics)
    rows = table(folder / "epochs.csv")
    assert set(rows[0]) == {"step", "epoch", "dissimilarity", "called_fake", "real_right"}
    assert float(rows[-1]["dissimilarity"]) < float(rows[0]["dissimilarity"])
    log = [float(row["dissimilarity"]) for row in table(folder / "log.csv")]
    assert [float(row["dissimilarity"]) for row in rows] == pytest.approx(np.reshape(log, (3, 3)).mean(1), rel=1e-6)
    run("sample --dst fourier --n 2 --out out/fourier --device cpu")


def test_figures_of_a_finetuning_begin_with_the_untouched_generator(monkeypatch):
    shown = {}
    for name in ("loss_curves", "rate_curve", "samples_before_after"):
        monkeypatch.setattr(finetune_module.figures, name, lambda *content, name=name, **_: shown.update({name: content}))
    untouched = iter([0.875, 0.5, 0.25])
    monkeypatch.setattr(finetune_module.SampleJudge, "__call__", lambda self, checkpoint: next(untouched))
    run(
        "finetune --generator base --pairs pairs --dst figures --overwrite --adv 0 --threshold 2 --epochs 2 --n 20 --batch_size 8 "
        "--detector logreg --device cpu"
    )
    assert shown["rate_curve"][0] == [0.875, 0.5, 0.25]
    assert [set(row) for row in shown["loss_curves"][0]] == [{"dissimilarity"}] * 6
    for name, images in zip(("base", "figures"), shown["samples_before_after"], strict=False):
        assert torch.equal(images, torch.cat(list(draw(load_run(name), finetune_module.SHOWN, 42, CPU))))


def test_each_pass_over_the_pairs_has_an_order_of_its_own(monkeypatch):
    seen, step = [], finetune_module.finetune_step

    def spying(trainer, real_image, latent, *rest):
        seen.append(latent[:, 0].tolist())
        assert rest[-1] == 2  # the threshold
        return step(trainer, real_image, latent, *rest)

    monkeypatch.setattr(finetune_module, "finetune_step", spying)
    run(
        "finetune --generator base --pairs pairs --dst orders --overwrite --adv 0 --threshold 2 --epochs 2 --n 20 --batch_size 8 "
        "--detector logreg --device cpu"
    )
    assert len(seen) == 6 and seen[:3] != seen[3:]


@pytest.mark.parametrize("steps_before_stop", [1, 3, 5])
def test_resumed_finetuning_is_bit_identical(steps_before_stop, monkeypatch, capsys):
    """Stopped in the middle of an epoch, at its end before it is judged, and in the second epoch."""
    monkeypatch.setattr(finetune_module, "StopRequest", StopAfter)
    command = "finetune --generator base --pairs pairs --adv 1 --epochs 2 --n 20 --batch_size 8 --detector logreg --device cpu"
    StopAfter.count = 10**9
    run(command + " --overwrite --dst straight")
    StopAfter.count = steps_before_stop - 1
    with pytest.raises(SystemExit) as stop:
        run(command + " --overwrite --dst halted")
    assert stop.value.code == 130 and f"stopped after step {steps_before_stop}" in capsys.readouterr().out
    StopAfter.count = 10**9
    assert "--lr is 1.0" in refused(command + " --resume --dst halted --lr 1", capsys)
    picture = min(Path("pairs/real").rglob("*.png"))
    content = picture.read_bytes()
    Image.open(picture).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(picture)
    assert "the pairs in pairs are others than when halted began" in refused(command + " --resume --dst halted", capsys)
    picture.write_bytes(content)
    run(command + " --resume --dst halted")
    straight, halted = (load_checkpoint(f"results/{name}/checkpoint.pt", "gan") for name in ("straight", "halted"))
    for part in ("generator", "discriminator"):
        assert all(torch.equal(value, halted[part][name]) for name, value in straight[part].items())
    assert straight["progress"] == halted["progress"] and len(table("results/halted/log.csv")) == 6
    for name in ("log.csv", "epochs.csv", "detection.png", "samples.png", "losses.png"):
        assert Path(f"results/straight/{name}").read_bytes() == Path(f"results/halted/{name}").read_bytes()
    assert "nothing to resume" in refused(command + " --resume --dst absent", capsys)
    for name in ("log.csv", "epochs.csv"):
        whole = Path(f"results/halted/{name}").read_text()
        for lost in ("", whole.partition("\n")[0] + "\n", "\0" * 200_000):
            Path(f"results/halted/{name}").write_text(lost)
            told = refused(command + " --resume --dst halted", capsys)
            assert f"results/halted/{name} " in told and "--overwrite" in told
        Path(f"results/halted/{name}").write_text(whole)


@pytest.mark.parametrize("steps_before_stop", [2, 3])
def test_finetuning_goes_on_without_its_log(steps_before_stop, monkeypatch):
    """The means of an epoch come from the checkpoint; the log holds what followed, and its curves keep their place."""
    monkeypatch.setattr(finetune_module, "StopRequest", StopAfter)
    monkeypatch.setattr(finetune_module, "LOG_EVERY", 2)
    curves = {}
    monkeypatch.setattr(finetune_module.figures, "loss_curves", lambda *shown, **more: curves.update(more, per_epoch=shown[1]))
    command = "finetune --generator base --pairs pairs --adv 1 --epochs 2 --n 20 --batch_size 8 --detector logreg --device cpu"
    StopAfter.count = 10**9
    run(command + " --overwrite --dst straight")
    assert curves == {"per_epoch": 3, "lost": 0}
    StopAfter.count = steps_before_stop - 1
    with pytest.raises(SystemExit):
        run(command + " --overwrite --dst halted")
    assert len(table("results/halted/log.csv")) == steps_before_stop
    Path("results/halted/log.csv").unlink()
    StopAfter.count = 10**9
    kill_before_saving(command + " --resume --dst halted", finetune_module.FinetuneRun, monkeypatch)
    run(command + " --resume --dst halted")
    straight, halted = (load_checkpoint(f"results/{name}/checkpoint.pt", "gan") for name in ("straight", "halted"))
    for part in ("generator", "discriminator"):
        assert all(torch.equal(value, halted[part][name]) for name, value in straight[part].items())
    assert Path("results/straight/epochs.csv").read_text() == Path("results/halted/epochs.csv").read_text()
    assert table("results/halted/log.csv") == table("results/straight/log.csv")[steps_before_stop:]
    assert curves == {"per_epoch": 3, "lost": steps_before_stop}


def test_pairs_and_checkpoints_know_the_generator_they_are_of(monkeypatch, capsys):
    """A generator that was trained anew under its name is another one."""
    command = "finetune --generator anew --pairs anew_pairs --adv 0 --epochs 2 --n 20 --batch_size 8 --detector logreg --device cpu"
    shutil.copytree("results/base", "results/anew")
    shutil.copytree("pairs", "anew_pairs")
    monkeypatch.setattr(finetune_module, "StopRequest", StopAfter)
    StopAfter.count = 0
    with pytest.raises(SystemExit):
        run(command + " --dst of_old")
    StopAfter.count = 10**9
    for path in Path("results/anew").glob("*.pt"):
        content = load_checkpoint(path, "gan")
        for part in ("generator", "average"):
            if content[part]:
                name = next(iter(content[part]))
                content[part][name] = content[part][name] + 0.01
        save_checkpoint(path, "gan", content)
    assert "the pairs in anew_pairs are of other weights than the generator anew has" in refused(command + " --dst no", capsys)
    Path("anew_pairs/pairs.json").unlink()  # nothing is known of these
    told = "the generator anew has other weights than when of_old began"
    assert told in refused(command + " --resume --dst of_old", capsys)
    run(command + " --dst of_new")


def test_other_pairs_are_noticed_by_a_finetuning_that_goes_on(monkeypatch, capsys):
    command = "finetune --generator base --pairs fewer --adv 0 --epochs 2 --n 20 --batch_size 8 --detector logreg --device cpu"
    shutil.copytree("pairs", "fewer")
    monkeypatch.setattr(finetune_module, "StopRequest", StopAfter)
    StopAfter.count = 0
    with pytest.raises(SystemExit):
        run(command + " --dst of_all")
    StopAfter.count = 10**9
    next(Path("fewer/real").rglob("*.png")).unlink()
    assert "the pairs in fewer are others than when of_all began" in refused(command + " --resume --dst of_all", capsys)


def test_a_detector_is_not_blamed_for_an_image_that_cannot_be_read(monkeypatch):
    def unreadable(classifier, batches):
        raise UserError("gone.png cannot be read")

    monkeypatch.setattr(finetune_module, "features_of", unreadable)
    with pytest.raises(UserError, match=r"^gone.png cannot be read$"):
        finetune_module.SampleJudge("svm", [torch.rand(3, 16, 16)], {}, 1, 0, CPU)


def test_threads_that_read_pairs_change_nothing(monkeypatch):
    workers = []
    monkeypatch.setattr(finetune_module, "read_ahead", lambda *work: workers.append(work[2]) or read_ahead(*work))
    command = "finetune --generator base --pairs pairs --adv 0 --epochs 1 --n 20 --batch_size 8 --device cpu --dst read"
    for number in (0, 2):
        run(f"{command}_{number} --num_workers {number}")
        run(f"study truncation --pairs pairs --dst cut_{number} --num_workers {number} --device cpu")
    assert workers == [0, 2]
    weights, again = (load_run(f"read_{number}", "last")["generator"] for number in (0, 2))
    assert all(torch.equal(value, again[name]) for name, value in weights.items())
    assert table("results/cut_0/truncation.csv") == table("results/cut_2/truncation.csv")


@pytest.mark.parametrize("terms", ["--adv 1 --metric 2", "--adv 1 --lambda_fourier 0"])
def test_adversarial_finetuning_trains_the_discriminator(terms):
    run(f"finetune --generator base --pairs pairs --dst both --overwrite {terms} --epochs 1 --n 20 --batch_size 8 --device cpu")
    before, after = load_run("base"), load_run("both")
    assert not torch.equal(before["discriminator"]["logit.weight"], after["discriminator"]["logit.weight"])
    assert {"adversarial", "dissimilarity"} <= set(table("results/both/epochs.csv")[0])


NO_NAMES = {"real": {"train": [], "validation": [], "test": []}}


def judged_by(state, classifier, size, known=()):
    """Fine-tune for an epoch with a detector, trained on reals of these names, as detect.py saves it; the row of epochs.csv."""
    identity = {"classifier": classifier, "size": size, "domain": "spectrum", "profile_corners": None}
    names = {"real": {"train": list(known[1:]), "validation": list(known[:1]), "test": []}}
    save_checkpoint(Path("detector.pt"), "detector", {"identity": identity, "state": state, "threshold": 0.5, "names": names})
    run(
        "finetune --generator base --pairs pairs --dst judged --overwrite --adv 0 --epochs 1 --n 20 --device cpu "
        "--detector detector.pt"
    )
    return table("results/judged/epochs.csv")[0]


def test_finetuning_is_judged_by_a_saved_detector(capsys):
    features = decay_features(torch.rand(20, 3, 16, 16)).numpy()
    row = judged_by(fit_classical("knn", features + 1e6, features, seed=0), "knn", 16)  # calls every image fake
    assert (float(row["called_fake"]), float(row["real_right"])) == (1, 0)
    state = Detector("cnn", 32, "spectrum").state_dict()
    assert "32 px, not of 16 px" in told(lambda _: judged_by(state, "cnn", 32), (), capsys)
    identity = {"classifier": "svm", "size": 16, "domain": "spectrum", "profile_corners": None}
    for content in ({}, {"identity": identity, "state": {}, "threshold": 0.5, "names": NO_NAMES}):
        save_checkpoint(Path("detector.pt"), "detector", content)
        assert "detector.pt is damaged or" in refused(
            "finetune --generator base --dst no --pairs pairs --detector detector.pt --device cpu", capsys
        )
    assert "neither knn" in refused("finetune --generator base --dst no --pairs pairs --detector nothing --device cpu", capsys)


def test_reals_that_a_saved_detector_knows_do_not_judge_it(capsys):
    real, _, _ = open_pairs("pairs")
    right, names = real[3][None], [str(Path(name).with_suffix(".jpg")) for name in real.paths.names]
    features = decay_features(torch.cat([right.expand(20, -1, -1, -1), torch.rand(20, 3, 16, 16)])).numpy()
    state = fit_classical("knn", features[:20], features[20:], seed=0)  # real: what equals this image
    assert float(judged_by(state, "knn", 16, known=names[:3] + names[4:])["real_right"]) == 1
    assert "trained on all reals" not in capsys.readouterr().err
    assert float(judged_by(state, "knn", 16, known=names)["real_right"]) < 1
    assert "trained on all reals of the pairs" in capsys.readouterr().err


def test_finetuning_is_judged_by_samples_that_no_detector_was_trained_on(monkeypatch):
    """Those of gan.py sample may have trained the one that is given."""
    drawn, draw = [], finetune_module.draw

    def noted(checkpoint, count, seed, device, stream=SAMPLE):
        drawn.append((stream, count))
        return draw(checkpoint, count, seed, device, stream)

    monkeypatch.setattr(finetune_module, "draw", noted)
    run("finetune --generator base --pairs pairs --dst apart --epochs 1 --n 20 --batch_size 8 --detector logreg --device cpu")
    assert drawn == [(DETECTOR, 20), (JUDGED, 20), (JUDGED, 20), (SAMPLE, finetune_module.SHOWN), (SAMPLE, finetune_module.SHOWN)]
    assert len({SAMPLE, DETECTOR, JUDGED, MONITOR, GRID, INVERT}) == 6


@pytest.mark.parametrize("classifier, domain", [("cnn", "spectrum"), ("cnn_whitened", "opponent")])
def test_saved_network_detectors_judge_batches(tmp_path, classifier, domain):
    network = Detector(classifier, 32, domain)
    image = torch.rand(6, 3, 32, 32)
    identity = {"classifier": classifier, "size": 32, "domain": domain, "profile_corners": None}
    for label, expected in ((FAKE, 1), (1 - FAKE, 0)):
        network.network.head.bias.data = torch.tensor([-50.0, -50.0])
        network.network.head.bias.data[label] = 50.0
        content = {"identity": identity, "state": network.state_dict(), "threshold": 0.5, "best_epoch": 0, "names": NO_NAMES}
        save_checkpoint(tmp_path / "detector.pt", "detector", content)
        assert SavedDetector(tmp_path / "detector.pt", 32, CPU).called_fake([image[:4], image[4:]]) == expected


def test_finetuning_stops_at_a_loss_that_is_not_finite(monkeypatch, capsys):
    monkeypatch.setattr(finetune_module, "finetune_step", lambda *_: {"dissimilarity": torch.tensor(float("nan"))})
    command = "finetune --generator base --dst nan --pairs pairs --device cpu --epochs 1 --n 20 --batch_size 8"
    assert "dissimilarity is not finite" in refused(command, capsys)


def test_finetune_refuses_what_cannot_work(capsys):
    base = "finetune --generator base --dst no --device cpu --epochs 1"
    assert "leaves no frequency" in refused(f"{base} --pairs pairs --threshold 8", capsys)
    assert "does not exist" in refused(f"{base} --pairs nothing", capsys)
    for other in ({"latent_dim": 9}, {"size": 32}):
        config = GanConfig(**{"size": 16, "dim": 4, "latent_dim": 8} | other)
        Path("results/other").mkdir(exist_ok=True)
        content = GanTrainer(config, 1e-3, Processes(CPU)).state_dict() | {"progress": {"epoch": 1}}
        save_checkpoint("results/other/best.pt", "gan", content)
        told = "the pairs in pairs do not fit the generator other"
        assert told in refused(f"{base} --pairs pairs".replace("base", "other"), capsys)
    assert "detector need 25" in refused(f"{base} --pairs pairs --batch_size 25", capsys)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune_module, "FEWEST_PAIRS", 25)
        assert "--batch_size 8 and a detector need 25" in refused(f"{base} --pairs pairs --batch_size 8", capsys)
    latent = next(Path("pairs/latent").rglob("*.npy"))
    content = latent.read_bytes()
    for broken, words in ((b"x", "is damaged"), (b"", "is damaged"), (content[:-8], "is damaged")):
        latent.write_bytes(broken)
        assert words in refused(f"{base} --pairs pairs", capsys)
    latent.write_bytes(b"PK\3\4 no archive")
    assert "is damaged" in refused(f"{base} --pairs pairs", capsys)
    whole = np.load(io.BytesIO(content))
    for wrong in (np.zeros(5, np.float32), whole * np.nan):
        np.save(latent, wrong)
        assert "run gan.py invert again" in refused(f"{base} --pairs pairs", capsys)
    latent.write_bytes(content)
    fake = next(Path("pairs/fake").rglob("*.png"))
    content = fake.read_bytes()
    Image.new("RGB", (8, 8)).save(fake)
    assert "run gan.py invert again" in refused(f"{base} --pairs pairs", capsys)
    fake.write_bytes(content)
    assert "leaves no loss" in refused(f"{base} --pairs pairs --adv 0 --lambda_fourier 0", capsys)
    assert not Path("results/no").exists()


@pytest.mark.usefixtures("drawn_figures")
def test_study_spectrum(capsys):
    run(
        "study spectrum --real datasets/set/real --inputs base again=results/base/ same=datasets/set/real"
        " --n 24 --dst spectra --overwrite --device cpu"
    )
    folder = Path("results/spectra")
    rows = {row["source"]: row for row in table(folder / "summary.csv")}
    assert list(rows) == ["real (two halves)", "base", "again", "same"]
    assert [int(row["images"]) for row in rows.values()] == [12, 24, 24, 24]
    assert "compares two halves of them, of so many images each" in capsys.readouterr().out
    assert float(rows["same"]["lfd"]) == 0 and float(rows["same"]["gap"]) == 0
    assert float(rows["base"]["lfd"]) == float(rows["again"]["lfd"]) > float(rows["real (two halves)"]["lfd"])
    assert len(table(folder / "decay.csv")) == 4 * 24
    assert len(table(folder / "profiles.csv")) == 4 * 9
    assert {path.name for path in folder.glob("*.png")} == {"spectra.png", "profiles.png", "decay.png"}


def test_study_spectrum_reads_shards():
    run("shard --data set --out spectra_shards/set --per_shard 10 --size 16")
    pattern = "spectra_shards/set-{000000..000002}.tar"
    run(f"study spectrum --real {pattern} --inputs packed={pattern} same=datasets/set/real --dst of_shards --device cpu")
    rows = {row["source"]: row for row in table("results/of_shards/summary.csv")}
    assert float(rows["packed"]["lfd"]) == float(rows["same"]["lfd"]) == 0 and rows["same"]["images"] == "24"


def test_study_spectrum_refuses(capsys):
    base = "study spectrum --real datasets/set/real --dst no --device cpu --inputs"
    assert "two inputs are called" in refused(f"{base} a=base a=base", capsys)
    assert "neither a folder nor a run" in refused(f"{base} nothing", capsys)
    assert "--inputs 'a=' names nothing" in refused(f"{base} base a=", capsys)
    assert "--inputs a\ab: " in refused(f"{base} a\ab", capsys)
    missing = f"{base} base".replace("datasets/set/real", "/nowhere/at/all")
    assert "/nowhere/at/all does not exist" in refused(missing, capsys)
    packed = "study spectrum --real results/taken/set-{000000..000002}.tar --dst taken --overwrite --device cpu --inputs base"
    run("shard --data set --out results/taken/set --per_shard 10 --size 16")
    assert "would delete results/taken/set-000000.tar" in refused(packed, capsys)
    photographs("datasets/lonely", 1)
    assert "one image" in refused("study spectrum --real datasets/lonely --dst no --device cpu --inputs base", capsys)
    photographs("datasets/wide", 3, size=20)
    photographs("datasets/wide/c", 2, size=16)
    assert "all must be squares of one size" in refused(f"{base} datasets/wide", capsys)
    photographs("datasets/large", 3, size=32)
    photographs("datasets/small", 3, size=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spectrum_module, "decay_features", None)  # nothing is measured
        assert "several sizes (real 16 px, base 16 px, large 32 px)" in refused(f"{base} base large=datasets/large", capsys)
    assert "16 px or more" in refused(f"{base} datasets/small", capsys)
    shutil.copytree("datasets/set/real", "datasets/set/fake")
    told = "datasets/set holds real/ and fake/; give the one of them that is meant"
    assert told in refused("study spectrum --real datasets/set --dst no --device cpu --inputs base", capsys)
    assert told in refused(f"{base} datasets/set", capsys)
    shutil.rmtree("datasets/set/fake")
    Path("results/pictures").mkdir()
    Path("results/pictures/options.json").write_text("{}")
    for command in (f"{base} results/pictures", f"train --data results/pictures --dst no {SMALL}"):
        assert "results/pictures is a run, with pictures of several kinds" in refused(command, capsys)
    assert not Path("results/no").exists()


@pytest.mark.usefixtures("drawn_figures")
def test_study_truncation():
    run("study truncation --pairs pairs --dst cut --overwrite --device cpu")
    rows = table("results/cut/truncation.csv")
    assert [int(row["threshold"]) for row in rows] == list(range(1, 8))
    real, fake, _ = open_pairs("pairs")
    images = [torch.stack([part[index] for index in range(24)]) for part in (fake, real)]
    for row in rows[::3]:
        for name, metric in (("frobenius", "2"), ("cosine", "cos")):
            assert float(row[name]) == pytest.approx(fourier_dissimilarity(*images, metric, int(row["threshold"])).item(), rel=1e-3)
    values = [float(row["frobenius"]) for row in rows]
    assert float(rows[3]["frobenius_derivative"]) == pytest.approx((values[4] - values[2]) / 2, rel=1e-3)


def test_study_setups(monkeypatch, capsys):
    command = (
        "study setups --data set --dst setups --setups BASELINE,N.1.3 --adversarial lsgan --epochs 1 --n 20 --repeats 2 "
        f"--train_fraction 0.3 --detectors knn,svm {SMALL}"
    )
    run(command)
    numbers = json.loads(Path("results/setups/table.json").read_text())
    assert list(numbers) == ["BASELINE", "N.1.3", "real"]
    assert numbers["real"]["score"] > 1  # the floor
    assert numbers["N.1.3"]["published"] == 74.07 and numbers["N.1.3"]["epochs"] == 1
    rows = {(row["detector"], row["source"]): row for row in table("results/setups/detection.csv")}
    assert len(rows) == 6
    row = rows["svm", "N.1.3"]
    assert float(row["mean"]) == pytest.approx((float(row["run_0"]) + float(row["run_1"])) / 2, abs=1e-5)
    assert numbers["N.1.3"]["svm"] == pytest.approx(float(row["mean"]), abs=1e-5)
    assert len(table("results/setups/decay.csv")) == 3 * 20
    assert numbers["real"]["knn"] == pytest.approx(float(rows["knn", "real"]["mean"]), abs=1e-5)
    assert load_run("setups/N.1.3")["config"]["setup"] == "N.1.3"
    assert "published FID" in capsys.readouterr().out
    monkeypatch.setattr(setups_module, "load_run", lambda dst: (content := load_run(dst))["progress"].update(epoch=7) or content)
    run(command + " --resume")  # trained runs are continued, not trained again
    for setup in ("BASELINE", "N.1.3"):
        numbers[setup]["epochs"] = 7
    assert json.loads(Path("results/setups/table.json").read_text()) == numbers
    assert "results/base is no gan.py study setups" in refused(f"{command} --dst base --resume", capsys)
    Path("results/setups/mine").mkdir()
    Path("results/setups/mine/options.json").write_text('{"dst": "setups/mine"}')
    assert "would delete results/setups/mine, another run" in refused(f"{command} --overwrite", capsys)
    Path("results/unreadable").mkdir()
    Path("results/unreadable/options.json").write_text("{")
    assert "results/unreadable is no gan.py study setups" in refused(f"{command} --dst unreadable --resume", capsys)
    before = contents("results/setups")
    longer = command.replace("--epochs 1", "--epochs 2").replace("BASELINE,N.1.3", "B.1.3,BASELINE")
    assert "--epochs is 2, but results/setups/BASELINE/checkpoint.pt was made with 1" in refused(longer + " --resume", capsys)
    assert contents("results/setups") == before
    assert "BASELINE is needed" in refused(command.replace("BASELINE,", ""), capsys)
    assert "'X.1.3' is none of BASELINE" in refused(command.replace("BASELINE,", "X.1.3,"), capsys)


def test_detectors_of_baseline_judge_what_they_were_not_trained_on(monkeypatch):
    made = []

    class Detector:
        unseen_real, unseen_fake = "unseen real", "unseen fake"

        def __init__(self, *settings):
            made.append(settings)

        def called_fake(self, features):
            return {"unseen real": 0.25, "unseen fake": 0.75, "of N": 0.5}[features]

    monkeypatch.setattr(setups_module, "SplitDetector", Detector)
    options = SimpleNamespace(detectors=["knn", "svm"], repeats=2, train_fraction=0.3, seed=5)
    rates = setups_module.detection_rates("reals", {"N.1.3": "of N", "BASELINE": "of BASELINE"}, options)
    assert made == [(name, "reals", "of BASELINE", 0.3, seed) for name in ("knn", "svm") for seed in (5, 6)]
    expected = {"real": 0.75, "N.1.3": 0.5, "BASELINE": 0.75}
    assert rates == [(detector, name, [rate] * 2) for detector in ("knn", "svm") for name, rate in expected.items()]


def test_interrupted_shards_need_no_option(monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr("gan_commands.shard._write_tar", stop)
        run("shard --data set --out cut/a --size 16")
    assert ended.value.code == 130
    assert capsys.readouterr().err.endswith("stopped; no file is half written, start the command again\n")
    run("shard --data set --out cut/a --size 16")


def test_shards_that_are_named_are_all_named(monkeypatch):
    rename = Path.replace

    def interrupted(path, target):
        signal.raise_signal(signal.SIGINT)
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupted)
        run("shard --data set --out cut/b --per_shard 10 --size 16")
    assert len(list(Path("cut").glob("b-*.tar"))) == 3


def test_shards_train_like_a_folder(capsys):
    run("shard --data set --out shards/set --per_shard 10 --size 16")
    assert "shards/set-{000000..000002}.tar" in capsys.readouterr().out
    run("train --data shards/set-{000000..000002}.tar --dst from_shards --overwrite --epochs 1 " + SMALL)
    assert len(table("results/from_shards/log.csv")) == 3


def test_shards_replace_an_earlier_row_but_not_the_one_they_are_made_of(capsys):
    run("shard --data set --out rows/set --per_shard 6 --size 16")
    assert len(list(Path("rows").glob("*.tar"))) == 4
    photographs("few", count=4)
    again = "shard --data few --out rows/set --per_shard 6 --size 16"
    assert "set-000000.tar exists already" in refused(again, capsys)
    Path("rows/set-000000.tar").unlink()
    assert "set-000001.tar exists already" in refused(again, capsys)  # it would be taken for a part of the new row
    run(f"{again} --overwrite")
    assert [path.name for path in Path("rows").iterdir()] == ["set-000000.tar"]
    before = contents("rows")
    own = "shard --data rows/set-{000000..000000}.tar --out rows/set --per_shard 2 --size 16 --overwrite"
    assert "names shards that --data" in refused(own, capsys)
    assert contents("rows") == before


def test_the_last_step_is_logged_and_a_finished_run_scores_nothing(monkeypatch):
    command = f"train --data set --dst logged --adversarial lsgan --epochs 1 {SMALL} --log_frequency 1000"
    run(command)
    (row,) = table("results/logged/log.csv")
    assert int(row["step"]) == 3
    run(f"train --data set --dst logged_critic --critic_steps 2 --epochs 1 {SMALL}")
    assert [row["step"] for row in table("results/logged_critic/log.csv")] == ["2"]  # the third step moves no generator
    monkeypatch.delattr(train_module, "GanMonitor")
    run(f"{command} --resume")


def test_an_empty_name_is_a_mistake(capsys):
    assert "--data: it is empty" in told(main, ["train", "--data", "", "--dst", "empty"], capsys)


def test_what_a_killed_process_left_does_not_stop_the_next():
    Path("drawn_again").mkdir()
    for name in (".lock", ".0123.tmp.json"):
        Path("drawn_again", name).touch()
    run("sample --dst base --n 2 --out drawn_again --device cpu")
    assert len(list(Path("drawn_again").glob("*.png"))) == 2


def test_a_best_epoch_that_is_gone_is_missed(capsys):
    shutil.copytree("results/base", "results/bestless")
    Path("results/bestless/best.pt").unlink()
    command = "sample --dst bestless --n 1 --out drawn_last --device cpu"
    assert "results/bestless/best.pt, the run's best epoch, is missing" in refused(command, capsys)
    run(f"{command} --checkpoint last")


def test_a_file_is_no_folder_of_pairs(capsys):
    Path("file").touch()
    assert "file is a file; give the folder" in refused("study truncation --pairs file --dst none --device cpu", capsys)


def test_overwriting_samples_spares_other_files():
    run("sample --dst base --n 2 --out drawn_over --device cpu")
    other = Path("drawn_over/2024_holiday.png")
    other.write_bytes(b"mine")
    run("sample --dst base --n 1 --out drawn_over --seed 3 --overwrite --device cpu")
    assert sorted(path.name for path in Path("drawn_over").glob("*.png")) == ["000000.png", other.name]


def test_a_short_training_with_several_critic_steps_leaves_its_log(monkeypatch, capsys):
    """Six steps, of which the fourth trains the generator; rows are due every twenty of those, and at the last one."""
    often = SMALL.replace("--log_frequency 1", "--log_frequency 20")
    command = f"train --data set --dst short --adversarial wgan-gp --critic_steps 4 --epochs 2 {often}"
    monkeypatch.setattr(train_module, "StopRequest", StopAfter)
    monkeypatch.setattr(StopAfter, "count", 2)
    with pytest.raises(SystemExit):
        run(command)
    monkeypatch.setattr(StopAfter, "count", 10**9)
    run(f"{command} --resume")
    assert "log.csv has nothing" not in capsys.readouterr().err  # none was due before it was stopped
    assert [row["step"] for row in table("results/short/log.csv")] == ["4"]


def test_finetuning_goes_on_with_the_detector_it_began_with(capsys):
    features = decay_features(torch.rand(20, 3, 16, 16)).numpy()
    judged_by(fit_classical("knn", features + 1e6, features, seed=0), "knn", 16)
    state = fit_classical("knn", features, features + 1e6, seed=0)
    content = load_checkpoint("detector.pt", "detector")
    save_checkpoint(Path("detector.pt"), "detector", content | {"state": state})
    again = "finetune --generator base --pairs pairs --dst judged --resume --adv 0 --epochs 1 --n 20 --device cpu"
    told = refused(f"{again} --detector detector.pt", capsys)
    assert "the detector detector.pt is another than when judged began; put that back" in told


def test_names_that_patterns_or_tables_could_not_tell_are_refused(capsys):
    for text in ("=base", "base=", ""):
        with pytest.raises(SystemExit) as stop:
            main(["study", "spectrum", "--real", "datasets/set/real", "--dst", "no", "--device", "cpu", "--inputs", text])
        assert stop.value.code == 2 and f"{text!r} names nothing" in capsys.readouterr().err
    assert "holds braces" in refused("shard --data set --out c{0..3} --size 16", capsys)
