# Two commands do everything, set-up included:
#   make run    the simulator demo: a trained policy that remembers moves a Franka FR3 in real time
#   make test   the tests
# and one more tries the Franka driver out without a robot:
#   make robot-test
# Both create .venv, install the missing Debian packages (software rendering, USB, compiler) and build the C++ core.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DEBIAN := g++ python3-dev python3-venv libegl1 libegl-mesa0 libgl1-mesa-dri libgles2 libusb-1.0-0
# For the C++ tests.
DEBIAN_TEST := cmake doctest-dev ninja-build openssh-server qemu-user
# For `make offline-test`: what makes the fresh Debian, and what it has besides Python.
DEBIAN_ROOT := mmdebstrap
OFFLINE_ROOT := python3 python3-venv libegl1 libegl-mesa0 libgl1-mesa-dri libgles2
BROWSER := chromium-headless-shell
SUDO   := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
PINNED := $(BIN)/pip install --quiet --constraint constraints.txt
PACKAGES := runtime export calib robot_io sim train
CPP    := $(wildcard runtime/core/*.[ch]pp tests/core/cpp/*.[ch]pp)
CORE   := $(wildcard runtime/core/*.[ch]pp) CMakeLists.txt

ARGS   ?= --task PickXtimes --policy am_grounded --seed 1000000
TESTS  ?= tests
# At most four: each worker holds torch, and a model or two.
WORKERS ?= $(shell n=$$(nproc); echo $$((n < 4 ? n : 4)))
# Of `make offline-test`: more arguments of `memrt run`.
DEMO    ?=
# Of `make third-party`: wheel sets.
SETS    ?= $(wildcard build/wheelhouse-*)
# Of 50 Hz chunks against the strict double.
SECONDS ?= 20
# Processes of `make memory-suite`, and a folder of fp32 bundles to compare with, if there is one.
JOBS    ?= 2
FP32    ?=
MEMORY  := sim/results/memory
# Of what is also played in fp32 and in real time.
TWO     := --policies am_grounded,memoryless --tasks BinFill,PickXtimes,SwingXtimes

# Installs those of the given Debian packages that are missing.
define install
missing=$$(for p in $(1); do dpkg -s $$p >/dev/null 2>&1 || echo $$p; done); \
	if [ -n "$$missing" ]; then \
	  command -v apt-get >/dev/null || { echo "expected Debian or Ubuntu, found no apt-get. Fix: install $$missing by hand" >&2; exit 2; }; \
	  $(SUDO) apt-get update -qq && $(SUDO) apt-get install -qq -y --no-install-recommends $$missing; \
	fi
endef

.PHONY: run test robot-test memory-suite wheel wheels wheelhouse third-party offline-test flash-test docs peers strict browser check format clean

run: $(VENV)/.runs
	$(BIN)/memrt run --robot sim $(ARGS)

# First what computes, side by side, with one thread each; then the tests of real time, one by one (tests/real_time).
# pytest's 5: none of TESTS is of this kind.
test: $(VENV)/.develops peers strict browser
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not real_time" --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS); \
	side_by_side=$$?; echo "Tests of real time:"; $(BIN)/python -m pytest -m real_time $(TESTS); one_by_one=$$?; \
	case "$$side_by_side $$one_by_one" in "0 0"|"0 5"|"5 0") ;; *) exit 1 ;; esac

# The Franka driver and policies against both doubles on loopback (sim/doubles/README.md).
robot-test: $(VENV)/.develops strict
	$(BIN)/python -m memrt.sim.doubles.robot_test --seconds $(SECONDS) $(if $(JSON),--json)

# Plays what is missing of the committed table and writes it anew (sim/MEMORY_SUITE.md).
memory-suite: $(VENV)/.runs
	$(BIN)/memrt eval --suite memory --results $(MEMORY) --jobs $(JOBS)
	$(if $(FP32),$(BIN)/memrt eval --suite memory --results $(MEMORY) --jobs $(JOBS) --precision fp32 --bundles $(FP32) $(TWO))
	$(BIN)/memrt eval --suite memory --results $(MEMORY) --real-time --episodes 30 $(TWO)
	$(BIN)/memrt eval --suite memory --results $(MEMORY) --stored --markdown $(MEMORY).md --plot $(MEMORY).svg

# memrt's own wheel for this Python; auditwheel refuses what would not run on other computers.
wheel: $(VENV)/.releases
	rm -rf build/wheel && $(BIN)/pip wheel --quiet --no-deps --wheel-dir build/wheel .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair --wheel-dir dist build/wheel/memrt-*.whl

# For Python 3.10, 3.11 and 3.12 on this architecture, each tried; needs docker or podman.
wheels: $(VENV)/.releases
	$(BIN)/cibuildwheel --platform linux --output-dir dist

# A wheel set for computers like this one; `memrt wheelhouse` makes those for others (runtime/wheelhouse/README.md).
wheelhouse: wheel
	rm -rf build/wheelhouse-cpu
	$(BIN)/memrt wheelhouse build/wheelhouse-cpu --wheel "$$(ls -t dist/memrt-*-cp$$($(BIN)/python -c 'import sys; print("%d%d" % sys.version_info[:2])')-*.whl | head -1)"

third-party: $(VENV)/.releases
	@[ -n "$(SETS)" ] || { echo "expected wheel sets, found none. Fix: make third-party SETS='SET...'" >&2; exit 2; }
	$(BIN)/python -m memrt.runtime.wheelhouse.licences $(SETS) > build/THIRD_PARTY.md && mv build/THIRD_PARTY.md THIRD_PARTY.md

# Installs the wheel set in a fresh Debian without a network, and runs the demo there. The Debian has Python 3.11.
offline-test: wheelhouse
	@$(call install,$(DEBIAN_ROOT))
	$(SUDO) tests/deploy/root.sh build/offline/root $(OFFLINE_ROOT)
	$(SUDO) tests/deploy/offline.sh build/offline/root build/wheelhouse-cpu $(DEMO)

# A robot's computer in a container: flashed, hung, rolled back, cut off (runtime/deploy/README.md). Needs root.
flash-test: wheelhouse
	@$(call install,$(DEBIAN_ROOT) systemd-container openssh-client)
	mkdir -p build/flash-test
	$(SUDO) $(BIN)/python tests/deploy/nspawn/flash_into_container.py --wheels build/wheelhouse-cpu --root build/flash-test/root $(if $(JSON),--json)

# The site in build/site; a broken link fails.
docs: $(VENV)/.releases
	$(BIN)/mkdocs build --quiet --config-file configs/docs/mkdocs.yml

peers: $(VENV)/peers/.installed

strict: $(VENV)/strict/.installed

# What the pages of `memrt report` are tested in. Ubuntu has none as a package: without one those tests are skipped.
browser: $(VENV)/.develops
	@for name in chromium-headless-shell chromium google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	if { apt-cache show $(BROWSER) || { $(SUDO) apt-get update -qq; apt-cache show $(BROWSER); }; } >/dev/null 2>&1; \
	then $(call install,$(BROWSER)); \
	else echo "no package $(BROWSER) here: the tests of the run's page are skipped, unless a Chromium is installed"; fi

check: $(VENV)/.develops
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	mkdir -p build/typed/memrt && ln -sfn $(addprefix $(CURDIR)/,$(PACKAGES)) build/typed/memrt/
	MYPYPATH=build/typed $(BIN)/mypy --follow-imports=silent -p memrt.runtime
	$(BIN)/clang-format --dry-run --Werror $(CPP)

format: $(VENV)/.develops
	$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .
	$(BIN)/clang-format -i $(CPP)

# What a robot's own computer needs: no torch.
$(VENV)/.runs: $(VENV)/.created $(CORE)
	$(PINNED) --editable '.[cpu,sim]'
	touch $@

# What makes wheels, wheel sets and the site.
$(VENV)/.releases: $(VENV)/.runs
	$(PINNED) --editable '.[cpu,sim,release,docs]'
	touch $@

# torch first and alone: any later request for it is then already satisfied by this build.
$(VENV)/.develops: $(VENV)/.created $(CORE)
	@$(call install,$(DEBIAN_TEST))
	$(PINNED) torch
	$(PINNED) --editable '.[cpu,sim,serve,train,lerobot,export,rtx,realsense,v4l2,robotiq,franka,docs,dev]'
	touch $@ $(VENV)/.runs

# The real clients that `memrt serve` is tested with: what they require does not go together with what we do.
$(VENV)/peers/.installed: tests/serve/peers/requirements.txt $(VENV)/.created
	$(PYTHON) -m venv $(VENV)/peers
	$(VENV)/peers/bin/pip install --quiet --requirement $<
	touch $@

# The strict test double of a Franka (sim/doubles/README.md).
$(VENV)/strict/.installed: tests/doubles/requirements.txt $(VENV)/.created
	$(PYTHON) -m venv $(VENV)/strict
	$(VENV)/strict/bin/pip install --quiet --requirement $<
	touch $@

$(VENV)/.created: pyproject.toml constraints.txt
	@$(call install,$(DEBIAN))
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 10) and "expected Python 3.10 or newer, found " + sys.version.split()[0])'
	touch $@

clean:
	rm -rf $(VENV) build
