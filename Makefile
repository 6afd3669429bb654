# Each target makes what it needs, starting from a Python that has pip or venv: the newest of these, or PYTHON=...
SHELL := bash
PYTHON := $(or $(PYTHON),$(firstword $(shell sh tools/pythons.sh 3.13 3.12 3.11)),\
	$(error there is no Python 3.13, 3.12 or 3.11 with pip or venv: install one, or say PYTHON=/path/to/python))
BIN := .venv/bin
READY := .venv/.$(shell $(PYTHON) -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
export PIP_DISABLE_PIP_VERSION_CHECK := 1

section = @printf '\n\033[1m== %s\033[0m\n' $(1)
# Debian keeps ensurepip in a package of its own; where it lacks, pip installs itself into the bare environment.
venv_of = { $(1) -m venv $(2) >/dev/null 2>&1 || \
	{ $(1) -m venv --clear --without-pip $(2) && $(1) -m pip --python $(2) install -qq pip; }; }
venv = $(call venv_of,$(PYTHON),$(1))
# Quietly, but for errors. Without build isolation the build backend is pinned like everything else.
install = $(1)/bin/pip install -qq $(3) 'setuptools>=77' && $(1)/bin/pip install -qq --no-build-isolation $(3) -e '.[$(2)]' \
	&& $(1)/bin/pip check

.DEFAULT_GOAL := help
.PHONY: help environment demo scale test style suite proof notebooks original matrix pins nightly exhaustive mutants accelerators docs links wheel lowest conformance-all accuracy bench bench-against clean

help:  ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

$(READY): pyproject.toml constraints.txt
	$(call section,'environment in .venv from $(PYTHON) (about a minute)')
	@[ -e $@ ] || { rm -rf .venv && $(call venv,.venv); }
	@$(call install,.venv,dev,-c constraints.txt)
	@touch $@

environment: $(READY)  ## make .venv, and nothing else

demo: $(READY)  ## train a small network on real digits with this Adadelta and with braintools', side by side
	@$(BIN)/python examples/digits.py --out build/demo

scale: $(READY)  ## show layouts, ZeRO-1, and two processes of which one is killed (about a minute)
	$(call section,'docs/scale.md on eight devices')
	@$(BIN)/python tools/page.py docs/scale.md
	$(call section,'two processes: ZeRO-1')
	@$(BIN)/python -W ignore -c 'import orbax.checkpoint' 2>/dev/null || $(BIN)/pip install -qq -c constraints.txt orbax-checkpoint
	@$(BIN)/python examples/processes.py --layout zero --folder build/processes

test: style proof suite docs  ## run every check: these four, of which docs executes the notebooks (`make -j2 test` runs two at a time)

style: $(READY)  ## ruff, mypy, and whether package and README are what the notebooks say
	$(call section,'style: ruff; types; package and README are what the notebooks say')
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/pytest -qq tests/test_sync.py

PROOF := $(wildcard $(patsubst %,tests/test_%.py,bounds enclosures exact exhaustive judge kit ptx ulp vectors worst_cases)) \
	braintools_adadelta/conformance braintools_adadelta/oracle
suite: $(READY)  ## run the tests of the optimizer, and the docstring examples
	$(call section,'tests of the optimizer and docstring examples')
	$(BIN)/pytest $(addprefix --ignore=,tests/test_sync.py $(PROOF))

proof: $(READY)  ## run the tests of the oracle, the bounds and the kit
	$(call section,'tests of the oracle and of the bounds and of the kit')
	$(BIN)/pytest $(PROOF)

notebooks: $(READY)  ## execute the notebooks, and build no site
	$(call section,'notebooks: executed')
	$(BIN)/nbdev_test --do_print

# What the newest release for Python 3.11 is; the newest of all is what `test` meets.
# After .venv: two installations at once would build the package in one place.
original: | $(READY)  ## run the tests that meet the original on Python 3.11, with braintools 0.3.0
	$(call section,'environment in build/venv-original from Python 3.11')
	@mkdir -p build && older=$$(sh tools/pythons.sh 3.11) && [ -n "$$older" ] || { echo "there is no Python 3.11"; exit 1; } \
		&& $(call venv_of,$$older,build/venv-original) && $(call install,build/venv-original,test,-c constraints.txt)
	build/venv-original/bin/pytest --ignore tests/test_sync.py -m original

matrix:  ## run the tests on every Python that is here, each with its newest versions; write docs/results/matrix.md
	$(PYTHON) tools/matrix.py $$(sh tools/pythons.sh 3.14 3.13 3.12 3.11)

pins: $(READY)  ## renew constraints.txt: the newest versions of everything, for each Python
	$(BIN)/python tools/pins.py

nightly: $(READY)  ## run the tests on many more examples, and those that are slow
	$(BIN)/pytest --ignore tests/test_sync.py --hypothesis-profile=nightly

exhaustive: $(READY)  ## run all 2^32 float32 gradients from five states (a quarter of an hour; goes on where it stopped)
	PYTHONPATH=tests $(BIN)/python tools/exhaustive.py
	PYTHONPATH=tests $(BIN)/python tools/worst_cases.py

mutants: $(READY)  ## change the package in one place at a time and see whether a test falls (about an hour; goes on where it stopped)
	$(BIN)/python tools/mutants.py

docs: $(READY)  ## build the site (notebooks executed, warnings are errors) and print where it is
	$(call section,'docs: built; links and captions and alternative texts checked; pages looked at in Chromium where it is installed')
	$(BIN)/sphinx-build -q -E -W -n -d build/doctrees docs build/docs
	$(BIN)/python tools/check_site.py build/docs
	$(BIN)/python tools/check_pages.py build/docs
	@echo "$(CURDIR)/build/docs/index.html"

links: $(READY)  ## follow the links of the site to other sites (needs the network)
	$(BIN)/sphinx-build -q -b linkcheck -d build/doctrees docs build/links

wheel: $(READY)  ## build wheel and sdist, and run the README's example with the wheel alone
	rm -rf dist build/lib build/bdist.* build/venv-wheel
	$(BIN)/python -m build --no-isolation >/dev/null
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl
	@mkdir -p build && $(call venv,build/venv-wheel)
	build/venv-wheel/bin/pip install -qq -c constraints.txt dist/*.whl && build/venv-wheel/bin/pip check
	$(BIN)/python tools/readme.py --code >build/readme_example.py
	cd build && venv-wheel/bin/python -P readme_example.py && echo "the README's example runs"

lowest: build/lowest.txt  ## run the tests on Python 3.11 with the oldest versions that pyproject.toml admits
	rm -rf build/venv-lowest
	@$(call venv_of,$$(sh tools/pythons.sh 3.11),build/venv-lowest)
	@$(call install,build/venv-lowest,test,-c build/lowest.txt)
	build/venv-lowest/bin/pytest --ignore tests/test_sync.py

build/lowest.txt: pyproject.toml | $(READY)
	@mkdir -p build && $(BIN)/uv pip compile -q --resolution lowest-direct --python-version 3.11 --extra test \
		--no-annotate --no-header pyproject.toml -o $@

# The versions, and how each must deviate, stand in the ledgers. Python 3.11 takes all of these versions.
conformance-all: $(READY)  ## judge every known implementation, each in its own environment; write docs/conformance.json
	$(BIN)/python tools/conformance.py $$(sh tools/pythons.sh 3.11)

accuracy: $(READY)  ## measure the accuracy of torch, optax and braintools beside ours; write docs/results/accuracy.md
	@mkdir -p build && $(call venv_of,$$(sh tools/pythons.sh 3.11),build/venv-accuracy)
	@$(call install,build/venv-accuracy,test,-c constraints.txt) \
		&& build/venv-accuracy/bin/pip install -qq $$($(BIN)/python tools/conformance.py --requirements torch)
	build/venv-accuracy/bin/python tools/accuracy.py

# The sympy and mpmath of the pins are those of the docs; torch wants others. BENCH=--quick takes less than a minute.
# With CLONES, a folder of clones as tools/ecosystem.toml names them, whole training steps of programs are measured too.
BENCH_BIN := build/venv-bench/bin
build/venv-bench/.ready: pyproject.toml constraints.txt
	$(call section,'environment in build/venv-bench from $(PYTHON) with torch')
	@mkdir -p build && rm -rf build/venv-bench && $(call venv,build/venv-bench)
	@grep -vE '^(sympy|mpmath)==' constraints.txt >build/bench-constraints.txt
	@$(call install,build/venv-bench,bench,-c build/bench-constraints.txt) && touch $@

bench: build/venv-bench/.ready  ## time ours, the peers and the machine's limit in turns (a quarter of an hour); write docs/results/benchmark.md
	$(if $(CLONES),$(BENCH_BIN)/pip install -qq pinnx prettytable)
	$(BENCH_BIN)/adadelta-bench --out docs/results $(if $(CLONES),--programs tools/ecosystem.toml $(CLONES)) $(BENCH)

bench-against: build/venv-bench/.ready  ## compare with the version at COMMIT=..., in one run; write build/bench
	@[ -n "$(COMMIT)" ] || { echo "say which version: make bench-against COMMIT=main~1"; exit 1; }
	@rm -rf build/bench-against && git worktree prune && git worktree add --detach build/bench-against $(COMMIT)
	$(BENCH_BIN)/adadelta-bench --only limit braintools_adadelta braintools --section memory large small first import \
		--against $(COMMIT)=build/bench-against --out build/bench $(BENCH); code=$$?; \
		git worktree remove --force build/bench-against; exit $$code

accelerators:  ## compile for GPUs and TPUs that are not here; write docs/results/accelerators.md and meshes.md (2 GB, twenty minutes)
	$(call section,'environment in build/venv-accelerators from $(PYTHON)')
	@mkdir -p build && $(call venv,build/venv-accelerators) && $(call install,build/venv-accelerators,conformance,-c constraints.txt)
	@jax=$$(build/venv-accelerators/bin/python -c 'import jax; print(jax.__version__)') && build/venv-accelerators/bin/pip \
		install -qq -c constraints.txt "jax[tpu]" "jax-cuda12-plugin==$$jax" nvidia-cuda-nvcc-cu12==12.9.86 optax tqdm
	$(call section,'compiled and counted')
	PYTHONPATH=tests build/venv-accelerators/bin/python tools/accelerators.py
	PYTHONPATH=tests build/venv-accelerators/bin/python tools/meshes.py

clean:  ## remove everything that make made
	rm -rf .venv build dist *.egg-info docs/*.ipynb docs/book.mplstyle .pytest_cache .ruff_cache .hypothesis
