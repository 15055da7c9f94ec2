# make demo   installs, makes a small data set, trains on it and shows what it did (no GPU, no download of data)
# make test   installs, checks the style and runs the tests, in up to four processes
ifeq ($(OS),Windows_NT)
PYTHON ?= python
BIN := .venv/Scripts
else
PYTHON ?= python3
BIN := .venv/bin
endif

.PHONY: demo test install clean

install: .venv/installed

.venv/installed: requirements.txt requirements-dev.txt constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt -c constraints.txt
	$(BIN)/python -c "import pathlib; pathlib.Path('.venv/installed').touch()"

demo: .venv/installed
	$(BIN)/python train.py --data demo --size 64 --fit crop --holdout 0.25 --epoch 2 --dst demo --overwrite
	@echo "look at results/demo/overview.png and results/demo/report.md"

test: export OMP_NUM_THREADS = 1
test: .venv/installed
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

clean:
	$(PYTHON) -c "import shutil; shutil.rmtree('.venv', ignore_errors=True)"
