# make demo | test | nightly | bench | lint | images. The first of them makes .venv from the lock in requirements/.
PYTHON ?= python3
BENCH ?=
PYTEST_ARGS ?=
# Which images `make images` builds, and how: names of templates, --gpu.
IMAGES ?= all
# Test processes beside each other; many tests wait. A file stays in one of them.
WORKERS ?= 3

# Where an environment forbids bytecode (many containers do), every daemon that a test starts would compile
# 300 modules anew, and every test process all tests.
export PYTHONDONTWRITEBYTECODE :=

BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test nightly lint bench images format lock clean kernels

demo: $(READY)
	$(BIN)/qubix demo

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

# A million random steps of the contract, other ones each day: some minutes.
nightly: $(READY)
	QUBIX_CONTRACT_STEPS=1000000 QUBIX_CONTRACT_SEED=$${QUBIX_CONTRACT_SEED:-$$(date +%Y%m%d)0000} \
		$(BIN)/python -m pytest tests/property/test_contract_machine.py $(PYTEST_ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/unit/test_imports.py

bench: $(READY)
	$(BIN)/python -m tests.bench $(BENCH)

images: $(READY)
	$(BIN)/qubix images $(IMAGES)

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The build tool first, so that the few packages without a wheel build with it and nothing unpinned
# is ever installed. No dependency is resolved here: the lock is complete (docs/adr/0002).
$(READY): requirements/build.txt requirements/lock.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "qubix needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/build.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes --no-build-isolation --use-pep517 -r requirements/lock.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@# libp2p brings trio-typing, whose stubs of an old trio would hide trio's own types from mypy.
	rm -rf .venv/lib/python3*/site-packages/trio-stubs
	@touch $@

# Renews the PTX of the proof's kernels from kernels.cu; no GPU is needed. NVRTC and ptxas are no
# dependencies: install nvidia-cuda-nvrtc-cu12 and nvidia-cuda-nvcc-cu12 into .venv for this.
kernels: $(READY)
	$(BIN)/python -m qubixd.proof.make_kernels

# Renews the lock; needs `uv` on the path. Addresses and indexes are left out of the result.
lock:
	./requirements/renew.sh

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info
