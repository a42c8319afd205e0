# `make demo` and `make test` do everything from Python 3.11, git and make; the rest is for people who work on dataprep.
PYTHON ?= python3.11
# a CPU build where there is one: pip config set global.extra-index-url https://download.pytorch.org/whl/cpu
TORCH ?= torch==2.13.0
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: setup demo test lint mxnet facenet img2dataset interop crash chaos benchmarks training clean

setup: .venv/ready
.venv/ready: setup.cfg setup.py dataprep/detection/_mtcnn.c
	$(shell command -v $(PYTHON) || echo python3) -m venv .venv
	$(BIN)/pip install -q '$(TORCH)' -e '.[dev]' && touch $@

demo: setup          ## synthetic faces, published as badly as the real web, through the whole line
	$(BIN)/dataprep demo demo

test: setup          ## everything that needs no GPU, no other environment, no network and no killing
	$(BIN)/python -m pytest -q -n 2 --dist loadscope --ignore tests/crash

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

mxnet: .venv-mxnet/ready      ## the real mxnet, as an oracle, in an environment of its own
.venv-mxnet/ready:
	$(shell command -v $(PYTHON) || echo python3) -m venv .venv-mxnet
	.venv-mxnet/bin/pip install -q '$(TORCH)' torchvision mxnet==1.9.1 numpy==1.26.4 hypothesis click pillow fsspec 'opencv-python-headless<4.12' && touch $@

facenet: .venv-facenet/ready  ## the real facenet-pytorch with the torchvision it imports; several GB
.venv-facenet/ready:
	$(shell command -v $(PYTHON) || echo python3) -m venv .venv-facenet
	.venv-facenet/bin/pip install -q facenet-pytorch==2.5.3 opencv-python-headless onnxruntime joblib && touch $@

img2dataset: .venv-img2dataset/ready  ## the real img2dataset, which wants its own numpy and opencv
.venv-img2dataset/ready:
	$(shell command -v $(PYTHON) || echo python3) -m venv .venv-img2dataset
	.venv-img2dataset/bin/pip install -q img2dataset==1.47.0 && touch $@

interop: setup mxnet facenet  ## what the field's own tools say of our packs and faces
	.venv-mxnet/bin/python -W ignore tests/interop/mxnet_oracle.py --dataprep $(BIN)/python
	.venv-facenet/bin/python tests/interop/facenet_oracle.py

crash: setup         ## full disks, lost networks, killed workers; then fifty SIGKILLs, and all is as if nothing had happened
	$(BIN)/python -m pytest -q -n 2 tests/crash
	$(BIN)/python tests/crash/kill.py
	$(BIN)/python tests/crash/chaos.py --steps 400

chaos: setup         ## ten thousand random verbs, kills, flipped bits, full disks; a model knows what must be there: an hour
	$(BIN)/python tests/crash/chaos.py

benchmarks: setup facenet mxnet img2dataset  ## fidelity and speed, side by side with the peers; well over an hour
	$(BIN)/python tests/benchmarks/synth.py
	.venv-mxnet/bin/python -W ignore tests/benchmarks/packs.py
	$(BIN)/python tests/benchmarks/loader.py --mxnet .venv-mxnet/bin/python
	$(BIN)/python tests/benchmarks/verification.py
	$(BIN)/python tests/benchmarks/protocols.py
	$(BIN)/python tests/benchmarks/target.py
	.venv-facenet/bin/python tests/benchmarks/detector.py
	$(BIN)/python tests/benchmarks/line.py --facenet .venv-facenet/bin/python --mxnet .venv-mxnet/bin/python
	$(BIN)/python tests/benchmarks/recall.py --facenet .venv-facenet/bin/python
	$(BIN)/python tests/benchmarks/fidelity.py --facenet .venv-facenet/bin/python
	$(BIN)/python tests/benchmarks/download.py --img2dataset .venv-img2dataset/bin/python

training: setup      ## that training learns: from scratch with five losses, and from published weights; about ten minutes
	$(BIN)/python tests/benchmarks/training.py

clean:
	rm -rf .venv .venv-mxnet .venv-facenet .venv-img2dataset demo build *.egg-info
