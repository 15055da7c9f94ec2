"""Run folders, checkpoints, logs, devices, options: what every script leans on."""

import argparse
import ast
import csv
import dataclasses
import errno
import importlib
import json
import os
import pickle
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest
import torch
from golden_recipe import golden_weights
from PIL import Image
from small import Trap, holding, told
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter

import options
from data.listing import ImagePaths, list_images
from detect_commands.options import DetectOptions, parse_detect
from gan_commands.options import parse_gan
from models import optimisers
from utils import checkpoint, distributed, files, locks, released, report, run_dir
from utils.arguments import as_arguments, as_plain, free_on_resume, images_list
from utils.devices import double_device, to_double
from utils.distributed import Processes, resolve_device
from utils.errors import UserError, out_of_memory, script
from utils.files import read_json
from utils.fresh_detector import fresh_accuracy
from utils.interrupts import leaving
from utils.locks import held_by_another, let_go
from utils.logging import ScalarLog, open_log
from utils.measure import refined_at_once
from utils.pretrained import pretrained_weights
from utils.result_files import flat_names, output_names
from utils.seeding import seed_everything
from utils.tables import write_csv

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("package", "allowed"), [("utils", {"utils"}), ("models", {"models", "utils"}), ("data", {"data", "utils"})]
)
def test_imports_go_one_way(package, allowed):
    ours = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/*.py")}
    for path in (ROOT / package).glob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        imported = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        imported |= {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
        assert {name.partition(".")[0] for name in imported} & ours <= allowed, path
        if package == "models":
            assert not imported & {"utils.checkpoint", "utils.errors", "utils.files", "utils.run_dir", "pathlib"}, path  # no files


def test_atomic_write_leaves_the_old_file_when_it_fails(tmp_path):
    path = tmp_path / "file.txt"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("dst", ["", ".", "..", "../elsewhere", "a/../..", "/tmp/elsewhere"])
def test_dst_stays_inside_results(dst, tmp_path):
    with pytest.raises(UserError, match="does not name a folder"):
        run_dir.open_run_folder(dst, overwrite=True, root=tmp_path / "results")


def test_run_folder_is_not_overwritten_unasked(tmp_path):
    folder = run_dir.open_run_folder("a", root=tmp_path)
    (folder / "kept").touch()
    with pytest.raises(UserError, match="exists already"):
        run_dir.open_run_folder("a", root=tmp_path)
    with pytest.raises(UserError, match="nothing to resume"):
        run_dir.open_run_folder("b", resume=True, root=tmp_path)
    with pytest.raises(UserError, match="exclude"):
        run_dir.open_run_folder("a", resume=True, overwrite=True, root=tmp_path)
    assert (run_dir.open_run_folder("a", resume=True, root=tmp_path) / "kept").exists()
    assert not (run_dir.open_run_folder("a", overwrite=True, root=tmp_path) / "kept").exists()


def test_run_folder_that_cannot_be_one_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        run_dir.open_run_folder("file", overwrite=True, root=tmp_path)
    target = run_dir.open_run_folder("target", root=tmp_path)
    try:
        (tmp_path / "link").symlink_to(target, target_is_directory=True)
    except OSError:
        pytest.skip("no symbolic links here")
    with pytest.raises(UserError, match="is a link"):
        run_dir.open_run_folder("link", overwrite=True, root=tmp_path)
    assert target.is_dir()


def test_overwriting_never_deletes_what_the_run_reads(tmp_path):
    folder = run_dir.open_run_folder("a", root=tmp_path)
    (folder / "images").mkdir()
    with pytest.raises(UserError, match=r"would delete .*images"):
        run_dir.open_run_folder("a", overwrite=True, root=tmp_path, inputs=(None, folder / "images"))
    assert (folder / "images").is_dir()
    with pytest.raises(UserError, match=r"would delete .*, a part of"):
        run_dir.open_run_folder("a", overwrite=True, root=tmp_path, inputs=(tmp_path,))
    run_dir.open_run_folder("a", overwrite=True, root=tmp_path, inputs=(None, tmp_path / "b"))


def test_overwriting_deletes_no_other_run(tmp_path):
    for dst in ("a/b", "full"):
        (run_dir.open_run_folder(dst, root=tmp_path) / "options.json").touch()
    (tmp_path / "full/eval").mkdir()
    with pytest.raises(UserError, match=r"a is no run, and --overwrite would delete .*b, which is in it"):
        run_dir.check_run_folder("a", overwrite=True, root=tmp_path)
    with pytest.raises(UserError, match=r"would delete .*eval, a part of .*full"):
        run_dir.check_run_folder("full/eval", overwrite=True, root=tmp_path)
    for dst in ("a/b", "full"):
        run_dir.check_run_folder(dst, overwrite=True, root=tmp_path)
    for dst, said in (
        ("full", "before"),
        ("full/cnn_classifier", "before"),
        ("full/knn_classifier", "full"),
        ("full/kid", "full/kid"),
    ):
        (tmp_path / dst).mkdir(exist_ok=True)
        (tmp_path / dst / "options.json").write_text(json.dumps({"dst": said}))
    with pytest.raises(UserError, match=r"would delete .*kid, another run"):
        run_dir.check_run_folder("full", overwrite=True, root=tmp_path)
    with pytest.raises(UserError, match=r"would delete .*kid, another run"):
        run_dir.check_run_folder("full", overwrite=True, root=tmp_path, parts=("other", "full"))
    run_dir.check_run_folder("full", overwrite=True, root=tmp_path, parts=("kid",))
    shutil.rmtree(tmp_path / "full/kid")
    run_dir.check_run_folder("full", overwrite=True, root=tmp_path)
    run_dir.check_run_folder("eval", overwrite=True, root=tmp_path / "full")  # a script's own part of a run


HOLDER = "import sys, utils.run_dir as r; r.open_run_folder('a', root=sys.argv[1]); print('held', flush=True); sys.stdin.read()"


def test_a_process_that_comes_second_takes_nothing_and_frees_nothing(tmp_path, monkeypatch):
    """Even if it came so close behind that it saw no other when it checked."""
    with holding(HOLDER, tmp_path) as other:
        assert other.stdout.readline() == "held\n"
        old = f".{32 * '0'}.tmp.pt"
        for name in ("kept", old):
            (tmp_path / "a" / name).touch()
            os.utime(tmp_path / "a" / name, (1, 1))
        with monkeypatch.context() as patch:
            patch.setattr(run_dir, "held_by_another", lambda _folder: False)
            for choice in ({"overwrite": True}, {"resume": True}):
                with pytest.raises(UserError, match="another process is filling"):
                    run_dir.open_run_folder("a", root=tmp_path, **choice)
        assert all((tmp_path / "a" / name).exists() for name in ("kept", old))
        let_go()
        assert held_by_another(tmp_path / "a")
    new = f".{32 * '1'}.tmp.csv"
    (tmp_path / "a" / new).touch()  # being written
    run_dir.open_run_folder("a", resume=True, root=tmp_path)
    left = {path.name for path in (tmp_path / "a").iterdir()}
    assert left == {"kept", ".lock", new}  # the other half of a file is nobody's any more


@pytest.mark.parametrize("asks_first", [True, False])
def test_a_lock_in_a_folder_that_was_made_again_is_anothers(tmp_path, asks_first):
    folder = run_dir.open_run_folder("a", root=tmp_path)
    shutil.rmtree(folder)
    with holding(HOLDER, tmp_path) as other:
        assert other.stdout.readline() == "held\n"
        assert not (asks_first and locks.hold(folder))
        let_go()
        assert (folder / ".lock").is_file() and not locks.hold(folder)


def test_overwriting_deletes_last_what_tells_whose_folder_it_is(tmp_path, monkeypatch):
    """Interrupted half way, it can be begun again."""
    folder = run_dir.open_run_folder("a", root=tmp_path)
    (folder / "options.json").write_text('{"dst": "a"}')
    for name in ("nested", "zebra"):
        (folder / name).mkdir()
        (folder / name / "options.json").write_text('{"dst": "a"}')
    delete = run_dir.delete

    def stopping(path):
        if path.name == "zebra":
            raise KeyboardInterrupt
        delete(path)

    with monkeypatch.context() as patch:
        patch.setattr(run_dir, "delete", stopping)
        with pytest.raises(KeyboardInterrupt):
            run_dir.open_run_folder("a", overwrite=True, root=tmp_path)
    run_dir.open_run_folder("a", overwrite=True, root=tmp_path)
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_a_lock_that_was_deleted_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    """Between opening and locking the file, the process that held it let go and another came."""
    lock, times = locks.lock, []

    def late(file, wait=True):
        if not times:
            (tmp_path / ".lock").unlink()
        times.append(file)
        return lock(file, wait)

    monkeypatch.setattr(locks, "lock", late)
    assert locks.hold(tmp_path) and len(times) == 2
    let_go()


def test_a_folder_is_filled_by_one_process_at_a_time(tmp_path):
    with holding(HOLDER, tmp_path) as other:
        assert other.stdout.readline() == "held\n"
        for choice in ({"overwrite": True}, {"resume": True}):
            with pytest.raises(UserError, match="another process is filling"):
                run_dir.open_run_folder("a", root=tmp_path, **choice)
        (tmp_path / "around").mkdir()
        (tmp_path / "a").rename(tmp_path / "around/a")  # as if it had been begun there
        with pytest.raises(UserError, match=r"another process is filling .*around"):
            run_dir.check_run_folder("around", overwrite=True, root=tmp_path)
        with pytest.raises(UserError, match="choose another --out"):
            run_dir.refuse_held(tmp_path / "around/a")
        (tmp_path / "around/a").rename(tmp_path / "a")
    folder = run_dir.open_run_folder("a", resume=True, root=tmp_path)
    assert (folder / ".lock").is_file()  # it stays when the lock goes
    run_dir.open_run_folder("a", resume=True, root=tmp_path)  # this process may
    run_dir.open_run_folder("a", overwrite=True, root=tmp_path)
    let_go()
    assert not list(folder.iterdir())
    with holding(HOLDER, tmp_path) as other:
        assert other.stdout.readline() == ""  # it exists, and nobody asked to overwrite it


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_run_of_which_a_part_cannot_be_deleted_is_kept_whole(tmp_path):
    folder = run_dir.open_run_folder("a", root=tmp_path)
    (folder / "checkpoint.pt").touch()
    (folder / "eval/fake").mkdir(parents=True)
    (folder / "eval/fake").chmod(0o500)
    with pytest.raises(UserError, match=r"eval/fake is read-only"):
        run_dir.open_run_folder("a", overwrite=True, root=tmp_path)
    assert (folder / "checkpoint.pt").is_file()


def test_every_folder_of_a_run_is_checked_before_it_is_deleted(tmp_path, monkeypatch):
    folder = run_dir.open_run_folder("a", root=tmp_path)
    (folder / "eval/fake").mkdir(parents=True)
    checked = []
    monkeypatch.setattr(run_dir, "check_place", checked.append)
    run_dir.check_run_folder("a", overwrite=True, root=tmp_path)
    assert {folder, folder / "eval", folder / "eval/fake"} <= set(map(Path, checked))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "not enough memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 5 bytes"), "not enough memory"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "x cannot be used: Permission denied; change its permissions"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), "x cannot be used: No space left on device; free some space"),
        (OSError(errno.ENOSPC, "No space left on device"), "a file (or standard output) cannot be used"),
        (OSError(errno.EMFILE, "Too many open files", "x"), "x cannot be used: Too many open files; let more files be open"),
    ],
)
def test_what_the_machine_refuses_is_one_sentence(error, words, capsys):
    @script
    def main(argv=None):
        raise error

    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="a closed pipe is another error there")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_nobody_reads_is_one_sentence(unbuffered):
    code = "from utils.errors import script\n@script\ndef main(argv=None):\n    print('x')\nmain()"
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 2
    assert done.stderr == "error: what read the output has ended (head, say); write it to a file, and look at that\n"


def test_too_little_memory_is_no_damaged_file(tmp_path, monkeypatch):
    """Whoever obeyed would delete a good run."""
    path = tmp_path / "checkpoint.pt"
    checkpoint.save_checkpoint(path, "stig", {})
    error = torch.OutOfMemoryError("CUDA out of memory")

    def fail(*_, **__):
        raise error

    with pytest.raises(torch.OutOfMemoryError), checkpoint.fitting(path):
        fail()
    monkeypatch.setattr(torch, "load", fail)
    monkeypatch.setattr(torch, "save", fail)
    for attempt in (lambda: checkpoint.load_checkpoint(path, "stig"), lambda: checkpoint.save_checkpoint(path, "stig", {})):
        with pytest.raises(torch.OutOfMemoryError):
            attempt()
    monkeypatch.setattr(torch, "cat", fail)
    parameter = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(torch.OutOfMemoryError):
        Processes(torch.device("cpu"), world=2).backward(parameter.sum(), [parameter])


def test_determinism_is_as_it_was_last_asked_for(monkeypatch):
    seed_everything(0, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    seed_everything(0)
    assert not torch.are_deterministic_algorithms_enabled()
    monkeypatch.setattr(torch, "use_deterministic_algorithms", None)  # imports torch's compiler, in seconds
    seed_everything(0)


def test_weights_of_no_names_are_refused(tmp_path):
    torch.save({"fc.weight": torch.zeros(1), 3: torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth does not hold a state dictionary"):
        pretrained_weights(str(tmp_path / "w.pth"), "https://nowhere/x.pth", "--resnet_weights")


def test_a_place_that_leads_nowhere_is_named(tmp_path):
    """Such as results -> /scratch/me where that disk is not mounted."""
    (tmp_path / "results").symlink_to("/nonexistent/scratch")
    with pytest.raises(UserError, match="results is a link to /nonexistent/scratch, which is not there"):
        run_dir.check_run_folder("a", root=tmp_path / "results")


def test_a_full_disk_under_tensorboard_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(RecordWriter, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    printed = []
    monkeypatch.setattr(threading, "excepthook", printed.append)
    with pytest.raises(OSError, match=r"No space left on device: .*tensorboard"), ScalarLog(tmp_path) as log:
        for step in range(100):
            log.write(step, {"loss": 1.0})
            time.sleep(0.01)
    assert not printed
    other = threading.Thread(target=lambda: 1 / 0)
    other.start()
    other.join()
    assert printed[0].thread is other


def test_other_errors_keep_their_traceback():
    @script
    def main(argv=None):
        raise RuntimeError("a shape does not fit")

    with pytest.raises(RuntimeError, match="a shape"):
        main()


@pytest.mark.parametrize("content", ["code", "code in an archive", "text", "other kind", "no kind", "cut", "cut late"])
def test_checkpoints_that_are_none_are_refused(content, tmp_path):
    path = tmp_path / "checkpoint.pt"
    if content == "code":
        path.write_bytes(pickle.dumps(Trap(tmp_path / "executed")))
    elif content == "code in an archive":
        torch.save({"kind": "stig", "x": Trap(tmp_path / "executed")}, path)
    elif content == "text":
        path.write_text("not a checkpoint")
    elif content == "other kind":
        checkpoint.save_checkpoint(path, "gan", {})
    elif content == "no kind":
        torch.save([1], path)
    else:
        checkpoint.save_checkpoint(path, "stig", {"x": torch.zeros(1000)})
        whole = path.read_bytes()
        path.write_bytes(whole[: 500 if content == "cut" else -100])
    with pytest.raises(UserError, match=r"checkpoint\.pt"):
        checkpoint.load_checkpoint(path, "stig")
    assert not (tmp_path / "executed").exists()


def test_damaged_weights_are_not_used(tmp_path):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save_checkpoint(path, "stig", {"x": torch.zeros(1000)})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load_checkpoint(path, "stig")


TABLES = [bytes([letter]) + b"tep,loss\n" for letter in range(32, 127)]  # the first letter is a command to an unpickler


@pytest.mark.parametrize("content", [b"", b"junk", b"\x80\x02", bytes(100), *TABLES])
def test_a_file_of_anything_is_no_checkpoint(tmp_path, content):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.pt is not a checkpoint"):
        checkpoint.read_tensors(tmp_path / "x.pt")


def test_a_sparse_tensor_is_not_plain(tmp_path):
    checkpoint.save_checkpoint(tmp_path / "x.pt", "stig", {"x": torch.eye(3).to_sparse()})
    with pytest.raises(UserError, match=r"x\.pt is not a checkpoint of plain tensors"):
        checkpoint.load_checkpoint(tmp_path / "x.pt", "stig")


def test_a_checkpoint_is_on_the_disk_before_it_replaces_another(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(checkpoint.os, "fsync", lambda file: synced.append((file.name, (tmp_path / "x.pt").exists())))
    checkpoint.save_checkpoint(tmp_path / "x.pt", "stig", {})
    ((name, there),) = synced
    assert name.endswith(".pt") and not there and (tmp_path / "x.pt").exists()


def test_a_full_disk_has_advice_that_fits(tmp_path, monkeypatch):
    def full(*_):
        raise RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full)
    for advice, words in ((None, "free some space and go on with --overwrite"), ("start again", "free some space and start again")):
        with pytest.raises(UserError, match=words):
            checkpoint.save_checkpoint(tmp_path / "new.pt", "x", {}, advice)
    (tmp_path / "checkpoint.pt").touch()
    with pytest.raises(UserError, match="go on with --resume"):
        checkpoint.save_checkpoint(tmp_path / "best.pt", "x", {})


def test_nested_json_is_refused(tmp_path):
    (tmp_path / "x.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"x\.json is not readable JSON"):
        read_json(tmp_path / "x.json")


def test_released_checkpoint_needs_its_parts(tmp_path):
    assert released.released_file(tmp_path) is None
    file = tmp_path / "Generator.pt"
    torch.save({"x": torch.zeros(1)}, file)
    with pytest.raises(UserError, match="missing"):
        released.released_generator(file)
    flat = {name: torch.zeros(3) for name in ("conv0_0.conv1.weight", "final.weight", "final.bias")}
    torch.save(flat, file)
    with pytest.raises(UserError, match="shape"):
        released.released_generator(file)
    for name, axis in (("conv0_0.conv1.weight", 1), ("final.weight", 0), ("final.bias", 0)):
        wide = dict(golden_weights("generator"))
        wide[name] = torch.cat([wide[name], wide[name]], axis)
        torch.save(wide, file)
        with pytest.raises(UserError, match=r"shape \(.*6.* channels"):
            released.released_generator(file)
    torch.save(golden_weights("generator"), file)
    assert released.released_file(tmp_path) == released.released_file(file) == file
    assert released.released_generator(file).keys() == golden_weights("generator").keys()


def test_devices():
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")
    for text in ("77", "cuda:77", "gpu", "0,1", "-1", "²"):
        with pytest.raises(UserError, match="--device"):
            resolve_device(text)


def test_auto_says_that_it_took_the_cpu(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    distributed.tell_of_cpu.cache_clear()
    for _ in range(2):
        assert resolve_device("auto").type == "cpu"
    assert capsys.readouterr().err == "no GPU that torch can use: computing on the CPU\n"  # once


def test_dockerfile_installs_as_the_makefile_does():
    lines = (Path(__file__).parents[1] / "Dockerfile").read_text().splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith(("#", " "))]
    assert ["RUN", "make install"] in steps
    assert not any("pip" in line for line in lines)
    assert [step[1] for step in steps if step[0] == "USER"] == ["stig"]
    assert steps[-1] == ["CMD", '["make", "demo"]']


def test_script_turns_user_errors_into_exit_2(capsys, tmp_path):
    @script
    def mistaken(argv=None):
        raise UserError("the folder is empty")

    @script
    def full(argv=None):
        raise OSError(errno.ENOSPC, "No space left on device", "results/x.png")

    @script
    def ours(argv=None):
        raise KeyError("bug")

    @script
    def long_name(argv=None):
        (tmp_path / ("x" * 300)).exists()

    @script
    def no_room(argv=None):
        with files.atomic_path(tmp_path / "table.json"):
            raise OSError(errno.ENOSPC, "No space left on device")  # as writing does, without a name

    mistakes = [(mistaken, "the folder is empty"), (full, "results/x.png"), (no_room, "table.json")]
    for main, words in [*mistakes, *([(long_name, "too long")] if os.name != "nt" else [])]:
        with pytest.raises(SystemExit) as stop:
            main([])
        assert stop.value.code == 2
        assert words in capsys.readouterr().err
    with pytest.raises(KeyError):
        ours([])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("option", "words"),
    [("--resume", "the same command with --resume goes on"), ("", "the same command goes on"), (None, "start the command again")],
)
def test_interrupted_scripts_say_how_to_go_on_and_leave_nothing_half_written(number, option, words, capsys, tmp_path):
    @script
    def main(argv=None):
        folder = tmp_path / ("none" if option is None else "run")
        with leaving(folder, lambda: option), files.atomic_path(tmp_path / "run/file") as temporary:
            locks.hold(tmp_path / "run")
            temporary.write_text("half")
            signal.raise_signal(number)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        main([])
    said = capsys.readouterr().err
    assert stop.value.code == 130 and said.startswith("stopped; ") and words in said and said.count("\n") == 1
    assert signal.getsignal(signal.SIGTERM) == before
    assert not list((tmp_path / "run").iterdir())


def test_places_that_cannot_be_written_are_refused(tmp_path, monkeypatch):
    folder = run_dir.open_run_folder("a", root=tmp_path)
    (tmp_path / "file").touch()
    for root, dst in ((tmp_path / "file", "b"), (tmp_path, "file/b")):
        with pytest.raises(UserError, match="file is a file"):
            run_dir.check_run_folder(dst, root=root)
    monkeypatch.setattr(os, "access", lambda place, _: place != tmp_path)
    run_dir.check_run_folder("a", resume=True, root=tmp_path)
    for arguments in ({"dst": "b"}, {"dst": "a", "overwrite": True}):
        with pytest.raises(UserError, match="read-only"):
            run_dir.check_run_folder(**arguments, root=tmp_path)
    monkeypatch.setattr(os, "access", lambda place, _: place != folder)
    with pytest.raises(UserError, match="read-only"):
        run_dir.check_run_folder("a", resume=True, root=tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
def test_links_in_a_circle_are_refused(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for dst, words in (("a", "is a link"), ("a/b", "nothing to resume"), ("c", "would delete")):
        with pytest.raises(UserError, match=words):
            (tmp_path / "c").mkdir(exist_ok=True)
            run_dir.check_run_folder(dst, overwrite=dst == "c", resume=dst == "a/b", root=tmp_path, inputs=[tmp_path / "c/x"])
    (tmp_path / "c.png").symlink_to(tmp_path / "c.png")
    assert list_images(tmp_path) == [tmp_path / "c.png"]


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_names_that_are_no_text_are_written(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    write_csv(tmp_path / "table.csv", ["name"], [[name]])
    assert (tmp_path / "table.csv").read_bytes() == b"name\ncaf\xe9\n"


def test_a_damaged_log_is_named(tmp_path):
    for content in (b"step,loss\nx,1\n", b"step,loss\n\xff,1\n", b"step,loss\n1,1\n" + bytes(200_000)):
        (tmp_path / "log.csv").write_bytes(content)
        with pytest.raises(UserError, match=r"log\.csv is damaged"):
            ScalarLog(tmp_path, resume_step=1)


def test_figures_heed_no_environment(tmp_path):
    """A notebook's backend is known to the notebook alone, and a user's matplotlibrc may ask for LaTeX."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nsavefig.format: pdf\n")
    (tmp_path / "draw.py").write_text(
        "from detect_commands import report\nfrom gan_commands import figures\n"
        "figures.rate_curve([0.5, 0.2], 'a_detector', 'rate.png')\nreport.save_figure(report.plt.figure(), 'empty.png')\n"
    )
    environment = os.environ | {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "MATPLOTLIBRC": str(tmp_path),
        "PYTHONPATH": str(ROOT),
    }
    subprocess.run([sys.executable, "draw.py"], cwd=tmp_path, env=environment, check=True, timeout=300)
    assert Image.open(tmp_path / "rate.png").format == Image.open(tmp_path / "empty.png").format == "PNG"


def test_states_that_do_not_fit_are_noticed_when_they_are_loaded():
    def adam(count):
        parameter = torch.nn.Parameter(torch.zeros(count))
        parameter.grad = torch.ones(count)
        optimiser = torch.optim.Adam([parameter, torch.nn.Parameter(torch.zeros(1))], 0.1)
        optimiser.step()
        return optimiser, torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.9)

    optimiser, scheduler = adam(3)
    optimisers.load_optimiser(optimiser, adam(3)[0].state_dict())
    with pytest.raises(ValueError, match="of shape"):
        optimisers.load_optimiser(optimiser, adam(4)[0].state_dict())
    for state, error in (({}, KeyError), (scheduler.state_dict() | {"last_epoch": "x"}, TypeError)):
        with pytest.raises(error):
            optimisers.load_scheduler(scheduler, state)
    scheduler.of_newer_versions = True  # as torch 2.14 keeps a number that 2.7 did not
    older = {"last_epoch": 7, "base_lrs": [0.1], "gamma": 0.9}
    optimisers.load_scheduler(scheduler, older)
    assert scheduler.last_epoch == 7


def test_a_log_is_closed_by_an_error_too(tmp_path, monkeypatch):
    """TensorBoard has then what was logged just before."""
    closed, close = [], SummaryWriter.close
    monkeypatch.setattr(SummaryWriter, "close", lambda self: closed.append(True) or close(self))
    with pytest.raises(UserError), open_log(tmp_path, None, Processes()) as log:
        log.write(1, {"loss": 7})
        raise UserError("the loss is not finite")
    assert closed
    with open_log(tmp_path, None, Processes(rank=1, world=2)) as log:
        assert log is None


def test_a_log_that_is_gone_is_told(tmp_path, capsys):
    ScalarLog(tmp_path)
    ScalarLog(tmp_path, resume_step=0)
    assert capsys.readouterr().err == ""
    ScalarLog(tmp_path, resume_step=7)
    assert "log.csv has nothing of the 7 steps so far; it goes on without them" in capsys.readouterr().err


def test_log_is_trimmed_on_resume(tmp_path):
    with ScalarLog(tmp_path) as log:
        for step in (1, 2, 3):
            log.write(step, {"loss": step / 3})
    with (tmp_path / "log.csv").open("a") as file:
        file.write("2")  # the beginning of a row that a killed process did not finish
    (tmp_path / "notes.csv").write_text('step,"mine"\n9,"kept"\n')
    with ScalarLog(tmp_path, resume_step=2) as log:
        log.write(3, {"loss": 7})
        with pytest.raises(ValueError, match="columns"):
            log.write(4, {"other": 1})
    rows = list(csv.reader((tmp_path / "log.csv").open()))
    assert [row[0] for row in rows] == ["step", "1", "2", "3"]
    assert rows[-1][1] == "7"
    assert '9,"kept"' in (tmp_path / "notes.csv").read_text()  # the user's own
    assert any((tmp_path / "tensorboard").iterdir())


def test_output_names_never_collide(tmp_path):
    names = output_names([tmp_path / name for name in ("a.jpg", "a.png", "b.png", "c.d.png")])
    assert [str(name) for name in names] == ["a.jpg.png", "a.png.png", "b.png", "c.d.png"]
    for given in (("a.jpg", "a.png", "a.jpg.png"), ("a.jpg", "A.png"), ("a.png", "A.png")):  # where file systems tell no case apart
        names = output_names([tmp_path / name for name in given])
        assert len({str(name).lower() for name in names}) == len(given)
    assert [str(name) for name in output_names(["b.jpg", "a.png", "A.png"])] == ["b.png", "000001_a.png.png", "000002_A.png.png"]
    assert [str(name) for name in output_names([tmp_path / "x" / "a.jpg", tmp_path / "a.jpg"], tmp_path)] == ["x/a.png", "a.png"]


def test_pictures_of_shards_lie_flat_and_apart():
    def found(*names):
        return [str(name) for name in flat_names(ImagePaths("shards-{0..1}.tar", names))]

    assert found("cat/0.png", "dog/0.png", "x/y/1.png") == ["cat_0.png", "dog_0.png", "x_y_1.png"]
    assert found("dog/0.png", "dog_0.png") == ["000000_dog_0.png.png", "000001_dog_0.png.png"]
    assert flat_names([Path("a/b.jpg")]) == [Path("b.png")]


BASE = ["--data", "x", "--dst", "y"]


def test_runs_have_names_that_can_be_written(capsys):
    for name in ("\udcff", "a\nb"):
        said = told(options.parse_train, ["--data", name, "--dst", name], capsys)
        assert "argument --dst: " in said  # what is read may be called anything


def test_a_closed_standard_output_is_no_mistake(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert script(lambda _argv: 3)() == 3


def test_every_script_keeps_freed_memory(monkeypatch):
    called = []
    monkeypatch.setattr("utils.errors.keep_freed_memory", lambda: called.append(1))
    script(lambda _argv: None)()
    assert called


def test_a_list_of_nothing_is_refused():
    with pytest.raises(argparse.ArgumentTypeError, match="',' names nothing"):
        images_list(",")


def test_what_was_left_below_a_run_is_swept(tmp_path):
    (tmp_path / "a/refined").mkdir(parents=True)
    mine = ".bashrc.tmpl"  # of somebody who keeps other files there
    for name in (f".{uuid.uuid4().hex}.tmp.png", mine):
        (tmp_path / "a/refined" / name).touch()
        os.utime(tmp_path / "a/refined" / name, (1, 1))
    run_dir.open_run_folder("a", resume=True, root=tmp_path)
    assert [path.name for path in (tmp_path / "a/refined").iterdir()] == [mine]


def test_a_fit_that_nothing_reads_is_refused_in_inference(capsys):
    command = ["--inference_data", "x", "--method", "linear", "--real", "r", "--fake", "f", "--dst", "d", "--fit", "crop"]
    assert options.parse_inference([*command, "--size", "32"]).fit == "crop"
    assert "--fit: has no effect without --size" in told(options.parse_inference, command, capsys)


@pytest.mark.parametrize("preset", options.PRESETS)
def test_what_a_preset_sets_is_not_called_unread(preset):
    given = options.parse_train([*BASE, "--preset", preset, "--lambda_nce", "0", "--lambda_lf", "0"])
    assert given.lambda_nce == given.lambda_lf == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--size", "100"], "multiple of 16"),
        (["--epoch", "0"], "at least 1"),
        (["--lr", "0"], "more than 0"),
        (["--lr", "nan"], "nan is out of range: give a number that is more than 0 and finite"),
        (["--cache_gb", "1e400"], "1e400 is out of range: give a number that is at least 0 and finite"),
        (["--nce_levels", "0,5"], "at most 4"),
        (["--size", "16", "--sigma", "9"], "--sigma"),
        (["--size", "16", "--sigma", "4", "--preset", "released"], "--norm"),
        (["--holdout", "1"], "at most 0.9"),
        (["--holdout", "0.2", "--test_data", "z"], "give one"),
        (["--generator", "other"], "invalid choice"),
        (["--lambda_nce", "0", "--tau", "0.3"], "--tau: has no effect with --lambda_nce 0"),
        (["--lambda_lf", "0", "--sigma", "3"], "--sigma: has no effect with --lambda_lf 0"),
        (["--lambda_psd", "0", "--rolled_real_profile", "True"], "--rolled_real_profile: has no effect with --lambda_psd 0"),
        (["--see", "3"], "unrecognized arguments: --see 3"),
        (["--timeout", "1e13"], "--timeout"),  # more minutes than a time can hold
    ],
)
def test_impossible_options_are_explained(arguments, words, capsys):
    assert words in told(options.parse_train, BASE + arguments, capsys)


@pytest.mark.parametrize("parse, command", [(options.parse_train, ""), (parse_gan, "train "), (parse_gan, "study setups ")])
def test_a_mistyped_command_is_told_in_one_line(parse, command, capsys):
    script = "train" if parse is options.parse_train else "gan"
    wanted = f"error: argument --seed: 'x' is not a whole number; python {script}.py {command}--help shows all options\n"
    assert told(parse, [*command.split(), "--seed", "x"], capsys) == wanted


def test_paths_are_tidied():
    """A shell's completion adds a slash; where a command goes on, the other spelling is the same folder."""
    parsed = parse_detect(["--real", "a//b/", "--fake", "c/", "--eval_root", "d/,e-{1,2}.tar,f-{a,b}.tar", "--dst", "x"])
    assert (parsed.real, parsed.fake, parsed.eval_root) == ("a/b", "c", ("d", "e-{1,2}.tar", "f-{a,b}.tar"))
    assert options.parse_eval(["--real", "a/", "--fake", "b/", "--dst", "x"]).real == "a"
    assert parse_gan(["train", "--data", "photos/", "--dst", "x"])[1].data == "photos"
    invert = parse_gan(["invert", "--dst", "x", "--data", "photos/", "--out", "pairs/"])[1]
    assert (invert.data, invert.out) == ("photos", "pairs")
    assert parse_gan(["finetune", "--generator", "x", "--pairs", "p/", "--dst", "y"])[1].pairs == "p"


def test_what_may_differ_on_resume():
    train = free_on_resume(options.TrainOptions)
    assert train >= {"device", "num_workers", "dst", "overwrite", "resume", "log_frequency", "cuda_graphs", "timeout"}
    assert not train & {"seed", "batch_size", "size", "lr", "epoch", "data", "fit", "deterministic", "amp"}
    assert "batch_size" in free_on_resume(options.InferenceOptions)
    assert "log_frequency" in free_on_resume(parse_gan(["train", "--data", "a", "--dst", "b"])[1])
    finetune = free_on_resume(parse_gan(["finetune", "--generator", "x", "--pairs", "p", "--dst", "y"])[1])
    assert "device" in finetune and not finetune & {"generator", "checkpoint", "pairs"}


def test_names_may_be_typed_with_their_folder(capsys):
    parsed = options.parse_train(["--data", "datasets/x/", "--test_data", "./datasets/z", "--dst", "results/a/b/"])
    assert (parsed.data, parsed.test_data, parsed.dst) == ("x", "z", "a/b")
    assert options.parse_eval(["--eval_root", "results/x"]).eval_root == "x"
    assert parse_gan(["sample", "--dst", "results/x", "--out", "o"])[1].dst == "x"
    assert parse_gan(["finetune", "--generator", "results/x", "--pairs", "p", "--dst", "y"])[1].generator == "x"
    for name in ("results", "my_results/x", "/results/x", "../results/x", "x"):  # not the folder's own
        assert options.parse_train(["--data", "x", "--dst", name]).dst == name
    assert "is where they all are" in told(options.parse_train, ["--data", "x", "--dst", "results/"], capsys)
    assert "is no name" in told(options.parse_train, ["--data", "x", "--dst", " "], capsys)


def test_a_command_in_a_report_can_be_typed_whatever_the_run_s_name():
    given = ["--data", "x", "--dst=-dash"]
    assert options.parse_train(as_arguments(options.parse_train(given), {})).dst == "-dash"


PARSERS = {name: getattr(options, f"parse_{name}") for name in ("train", "inference", "eval")}
PARSERS |= {"detect": parse_detect, "gan": parse_gan}
DOCUMENTS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "options.py",
    *sorted(ROOT.glob("*_commands/options.py")),
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documented_commands_can_be_typed(document):
    text = document.read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"^ *python (train|inference|eval|detect|gan)\.py ([^\n$;]*)$", text, re.MULTILINE)
    commands = [(script, line) for script, line in found if "..." not in line]
    for script_name, line in commands:
        PARSERS[script_name](shlex.split(line))
    assert commands or "python train.py" not in text


def test_documented_imports_are_there():
    text = "".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    found = re.findall(r"from ((?:benchmarks|data|models|utils|\w+_commands)[\w.]*) import (\w+)", text)
    assert len(found) > 3
    for module, name in found:
        assert hasattr(importlib.import_module(module), name), (module, name)


@pytest.mark.parametrize("parse", [*PARSERS.values()], ids=[*PARSERS])
def test_help_shows_defaults_as_they_are_typed(parse, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(["train", "--help"] if parse is parse_gan else ["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "default: 42" in text
    for noise in ("default: None", "default: (", "==SUPPRESS=="):
        assert noise not in text
    of_flags = re.findall(r"^  --(?:overwrite|skip_bad|resume|deterministic) .*?(?=^  --|\Z)", text, re.MULTILINE | re.DOTALL)
    assert of_flags and not any("default" in each for each in of_flags)


def test_help_tells_what_a_preset_sets_and_defaults_that_are_false(capsys):
    with pytest.raises(SystemExit):
        options.parse_train(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "in the wrong order (default: False)" in text
    assert (
        "it sets --generator, --base, --centre, --whiten," in text and "--rolled_real_profile, --ema, unless they are given" in text
    )


def test_each_option_stands_once_in_its_group_of_the_help(capsys):
    with pytest.raises(SystemExit):
        parse_detect(["--help"])
    text = capsys.readouterr().out
    titles = ["what to do", "size", "reading images", "protocol", "training a detector", "machine", "run folder"]
    places = [re.search(rf"^{title}.*:$", text, re.MULTILINE).start() for title in titles]
    assert places == sorted(places)
    for name in (field.name for field in dataclasses.fields(DetectOptions)):
        assert len(re.findall(rf"^  --{name}\b", text, re.MULTILINE)) == 1
    assert re.search(r"--overwrite +train anew in an existing", text)  # the run folder's own help is reworded


def test_lists_of_names_count_each_name_once_and_refuse_others(capsys):
    assert parse_detect(["--dst", "y", "--classifier", "knn,cnn,knn"]).classifier == ("knn", "cnn")
    study = ["study", "setups", "--data", "x", "--dst", "y"]
    assert parse_gan([*study, "--detectors", "svm,knn,svm"])[1].detectors == ("svm", "knn")
    assert parse_gan([*study, "--detectors", "all"])[1].detectors == ("knn", "svm", "mlp")
    for parse, command in ((parse_detect, ["--dst", "y", "--classifier"]), (parse_gan, [*study, "--detectors"])):
        for names in ("knn,other", "knn,", ""):
            assert "is none of" in told(parse, [*command, names], capsys)
    assert "'all' is none of" in told(parse_detect, ["--dst", "y", "--classifier", "all"], capsys)


def test_presets_set_defaults_that_options_override():
    assert options.parse_train(BASE).generator == "residual"
    released = options.parse_train([*BASE, "--preset", "released", "--norm", "instance"])
    assert (released.generator, released.upsample, released.norm) == ("direct", "bicubic", "instance")
    assert not released.centre and not options.parse_train([*BASE, "--base", "identity"]).centre
    assert options.parse_train(BASE).centre and not options.parse_train([*BASE, "--generator", "direct"]).centre
    plain = as_plain(released)
    assert plain["nce_levels"] == [0]


def test_folders_are_made_whole_or_not_at_all(tmp_path):
    path = tmp_path / "sets" / "crops"
    with pytest.raises(KeyboardInterrupt), files.atomic_folder(path) as temporary:
        (temporary / "0.png").touch()
        raise KeyboardInterrupt
    assert not list(path.parent.iterdir())
    with files.atomic_folder(path) as first, files.atomic_folder(path) as second:  # two calls at once
        for number, temporary in enumerate((first, second)):
            (temporary / f"{number}.png").touch()
    assert [file.relative_to(path.parent).as_posix() for file in path.parent.rglob("*")] == ["crops", "crops/1.png"]
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), files.atomic_folder(tmp_path / "file") as temporary:
        (temporary / "0.png").touch()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "sets"]


def test_files_are_written_under_the_users_umask(tmp_path):
    before = os.umask(0o077)
    try:
        files.write_text(tmp_path / "private", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600


def test_float64_is_computed_where_there_is_some():
    assert double_device(torch.device("mps")) == torch.device("cpu")
    assert double_device("cuda:1") == torch.device("cuda:1")
    value = torch.ones(2, requires_grad=True)
    assert to_double(value).dtype == torch.float64 and not to_double(value).requires_grad


def test_the_closing_table_keeps_versions_of_a_scene_in_one_fold():
    """One fake is missing, so that equal places no longer show equal scenes; reals and fakes hardly differ."""
    names, image = [f"{number:03d}" for number in range(40)], torch.rand(40, 3, 16, 16)
    real, fake = report.ReportRow(names), report.ReportRow(names[1:])
    real.update(image)
    fake.update((image[1:] + 0.001).clamp(0, 1))
    features = [row.features["logreg"][0].numpy() for row in (real, fake)]
    assert fake.numbers(real)["logreg"] == fresh_accuracy(*features, (names, names[1:]))[0] != fresh_accuracy(*features)[0]


def test_detectors_of_the_closing_table_see_a_bounded_sample(monkeypatch):
    monkeypatch.setattr(report, "DETECTED_IMAGES", 4)
    row, images = report.ReportRow(range(10)), torch.rand(10, 3, 16, 16)
    for part in images.split(3):
        row.update(part)
    assert torch.allclose(torch.cat(row.features["logreg"]), report.LOOKED_AT["logreg"](images[[0, 2, 5, 7]]))
    assert row.spectra.total.count == 10


FAULTS = """
import resource, sys
import numpy as np
from utils.memory import keep_freed_memory

keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.empty(2**27, np.uint8).fill(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_that_was_freed_is_used_again():
    """By pages that the system gives for the second array of 32,768 of them; left alone where the environment says something."""
    home = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    faults = [
        int(subprocess.run([sys.executable, "-c", FAULTS], env=env, capture_output=True, check=True, cwd=ROOT).stdout)
        for env in (home, home | {"MALLOC_PERTURB_": "0"})
    ]
    assert 10 * faults[0] < faults[1]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be ..."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["torch", "driver", "cuBLAS"],
)
def test_memory_that_a_gpu_lacks_is_told_whoever_asked_for_it(error):
    assert out_of_memory(error)
    assert not out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))


def test_the_cause_that_nccl_gives_is_told():
    message = "[Rank 1] NCCL error in: NCCLUtils.cpp:94, unhandled system error\nLast error:\nno space there\n"
    assert distributed.reason(RuntimeError(message)) == "NCCL: no space there"


def test_large_images_are_refined_one_by_one():
    assert [refined_at_once(side) for side in (64, 256, 512, 1024, 2048)] == [256, 16, 4, 1, 1]
