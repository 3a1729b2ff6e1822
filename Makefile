# Two commands: `make demo` and `make test`. Both set everything up first: .venv, and for the tests of
# the backbones that need a newer e3nn than MACE allows also .venv-e3nn06.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
NEWER  := .venv-e3nn06
NEWER_STAMP := $(NEWER)/.installed

export PYTHONUNBUFFERED = 1
export MPLBACKEND = Agg

.PHONY: demo test test-e3nn06 setup-e3nn06 test-slow speed accuracy leaderboard lint types imports cards setup clean help

help:
	@echo "make demo         train a lithium potential, score it beside CHGNet, open the pages"
	@echo "make test         run the tests in both environments"
	@echo "make test-e3nn06  only those of nequip, allegro, sevennet and native, in .venv-e3nn06"
	@echo "make test-slow    run the tests that take minutes"
	@echo "make speed        measure throughput against peers (K=pattern for some)"
	@echo "make accuracy     errors of every backbone after equal CPU time (an hour)"
	@echo "make leaderboard  rebuild the leaderboard from the recorded results"
	@echo "make lint types imports cards    what CI also checks"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "mlip needs Python 3.11 or newer: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[mace,chgnet,data,xtb,slurm,sweep,dev]'
	@touch $@

setup-e3nn06: $(NEWER_STAMP)

$(NEWER_STAMP): pyproject.toml constraints-e3nn06.txt
	$(PYTHON) -m venv $(NEWER)
	$(NEWER)/bin/python -m pip install --quiet --constraint constraints-e3nn06.txt --editable '.[nequip,allegro,sevennet,test]'
	@touch $@

demo: setup
	$(BIN)/python train.py output=runs/demo resume=auto
	$(BIN)/mlip benchmark task=all calculator=checkpoint,chgnet_0_3_0 checkpoint=runs/demo/best.safetensors output=runs/demo/benchmark 'modes=[static,relaxed]'
	$(BIN)/mlip evaluate calculator=chgnet_0_3_0 frames=mlearn_li output=runs/demo/chgnet
	@echo
	@echo "Open   runs/demo/report.html                  how well the potential learnt"
	@echo "       runs/demo/benchmark/leaderboard.html   how it scores beside CHGNet"
	@echo "Next   .venv/bin/mlip data inspect FILE       what your own frames hold"
	@echo "       .venv/bin/mlip train data=extxyz data.path=FILE data.units=ase output=runs/mine"
	@echo "       .venv/bin/mlip list                    everything that can be chosen"

test: setup test-e3nn06
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --require mace,chgnet $(ARGS)

test-e3nn06: setup-e3nn06
	OMP_NUM_THREADS=1 $(NEWER)/bin/python -m pytest -n 2 --dist loadfile --require nequip,allegro,sevennet \
		-m '(nequip or allegro or sevennet or native) and not slow and not gpu and not speed' \
		tests/contract tests/models $(ARGS)

test-slow: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow $(ARGS)

speed: setup setup-e3nn06
	$(BIN)/python -m pytest tests/speed -m speed -s -q $(if $(K),-k '$(K)')
	$(NEWER)/bin/python -m pytest tests/speed/test_sevennet.py tests/speed/test_native.py -m speed -s -q $(if $(K),-k '$(K)')

accuracy: setup setup-e3nn06
	OMP_NUM_THREADS=1 $(BIN)/python tests/speed/accuracy.py $(ARGS)
	OMP_NUM_THREADS=1 $(NEWER)/bin/python tests/speed/accuracy.py only=sevennet,nequip,allegro,nequip-train $(ARGS)

leaderboard: setup
	$(BIN)/mlip benchmark report

lint: setup
	$(BIN)/ruff check mlip tests train.py
	$(BIN)/ruff format --check mlip tests train.py

types: setup
	$(BIN)/pyright

imports: setup
	$(BIN)/lint-imports

cards: setup
	$(BIN)/check-jsonschema --schemafile datasets/card.schema.json datasets/*/card.yaml
	$(BIN)/check-jsonschema --schemafile benchmarks/card.schema.json benchmarks/*/card.yaml

clean:
	rm -rf $(VENV) $(NEWER) runs outputs multirun
