# ds4relay: `make demo` shows it, `make test` tests it; both set up what they need (Debian, root, Go).
# What a target does is in scripts/, in the file of its name or the one that it calls.

SSH_PACKAGES := openssh-client openssh-server dropbear-bin

# The lab needs QEMU and a kernel to boot, and the programs that the tests compare with and listen with.
LAB_PACKAGES := qemu-system-x86 qemu-system-mips qemu-system-arm qemu-utils busybox-static cpio kmod xz-utils zstd \
	wireguard-tools iptables iproute2 iputils-ping procps diffutils nftables ethtool curl iperf3 mmdebstrap e2fsprogs \
	keepalived conntrackd $(SSH_PACKAGES)
UNIT_PACKAGES := curl jq lua5.1 python3-prometheus-client $(SSH_PACKAGES)
TEST_PACKAGES := shellcheck zopfli lintian dbus-daemon zsh fish $(UNIT_PACKAGES)
BENCH_PACKAGES := haproxy socat 6tunnel nginx-light libnginx-mod-stream

# LAB=vm boots Debian's kernel in QEMU; LAB=host uses namespaces on this machine's own kernel.
export LAB ?= vm
export CACHE BUILD PACKAGE_VERSION VERSION ROUTER FRP LUCI PROXYBENCH COUNT UBUNTU KERNEL ARCHES DEB_ARCHES KEYS TAG \
	SITE_URL

.PHONY: all demo test unit labs lab lab-alone lab-first lab-second lab-routers lab-mipsel lab-arm64 lab-debian \
	lab-bookworm lab-trixie lab-home lab-jammy lab-noble lab-ubuntu test-one flaky boots lint ipk apk deb \
	release release-draft release-publish release-site release-keys \
	test-packages size test-luci-app test-luci luci-pot luci-po luci-screens bench bench-up bench-path \
	bench-wireguard bench-where bench-compare bench-mips bench-setup \
	bench-proxy recording fuzz faults race-proxy soak-proxy idle-proxy \
	deps labctl test-deps packages node clean stages

all: ; scripts/build

demo: labctl ; @scripts/demo

test: test-deps labctl node ; @scripts/test

unit: ; @scripts/apt busybox-static $(UNIT_PACKAGES) && scripts/promtool && scripts/go-test -p 4 ./...

# One test of the lab, or those that match: make test-one T=TestPorts
test-one: labctl ; @scripts/lab one '^$(T)$$'

# Each test of the lab N times under load; T is a pattern of their names.
flaky: labctl ; @scripts/flaky $(or $(N),20) '$(T)'

# The lab's machine and a router's booted N times under load.
boots: labctl packages ; @scripts/boots $(or $(N),200)

lab: labctl ; scripts/lab all
lab-alone lab-first lab-second: lab-%: labctl ; scripts/lab $*
lab-mipsel lab-arm64: lab-%: labctl packages ; scripts/lab router $*
lab-bookworm lab-trixie lab-jammy lab-noble: lab-%: labctl packages ; scripts/lab debian $*
# Takes five minutes more than there are for `make test`.
lab-home: labctl packages ; scripts/lab home trixie
lab-routers: lab-mipsel lab-arm64
lab-debian: lab-bookworm lab-trixie lab-home

# The VPS's end on two Ubuntus. It is no part of `make test`, since a Debian machine knows no mirror of Ubuntu:
# make lab-ubuntu UBUNTU=<mirror>
lab-ubuntu: lab-jammy lab-noble

# The stages of `make test`, two at a time (scripts/test), behind alone: half a lab beside the packages, then all
# others in this order. Those that need no packages wait too: otherwise make would start them before the longest ones.
STAGES := bookworm trixie lab-second unit mipsel arm64 package-tests luci
stages: stage-packages stage-lab-first $(addprefix stage-,$(STAGES))
$(addprefix stage-,$(STAGES)): stage-packages
stage-packages: ; @scripts/stage packages scripts/package-for-tests
stage-alone: ; @scripts/stage alone scripts/lab alone
stage-lab-first stage-lab-second: stage-lab-%: ; @scripts/stage lab-$* scripts/lab $*
stage-bookworm stage-trixie: stage-%: ; @scripts/stage $* scripts/lab debian $*
stage-mipsel stage-arm64: stage-%: ; @scripts/stage $* scripts/lab router $*
stage-unit: ; @scripts/stage unit scripts/go-test -p 4 ./...
stage-package-tests: ; @scripts/stage package-tests scripts/test-packages
stage-luci: ; @scripts/stage luci scripts/luci-test

lint: test-deps node ; scripts/lint

# Packages for OpenWrt and Debian, into build/packages; ARCHES and DEB_ARCHES choose some.
ipk apk: ; scripts/package-openwrt $@ $(ARCHES)
deb: ; scripts/package-debian $(DEB_ARCHES)
packages: ; scripts/package-for-tests
test-packages size: packages ; scripts/test-packages

# A release (docs/dev/release.md). KEYS is the folder that release-keys has made; without it nothing is signed.
release: ; scripts/release build
release-draft release-publish release-site: release-%: ; scripts/release $*
release-keys: ; scripts/release-keys $(KEYS)

test-luci-app: node ; scripts/luci-test
luci-pot luci-po: node ; scripts/$@
test-luci luci-screens: node ; scripts/luci-browser $(patsubst luci-%,%,$(patsubst test-luci,luci-test,$@))

bench: bench-compare bench-up bench-path
bench-up bench-path bench-wireguard bench-where bench-compare bench-mips bench-proxy: bench-%: labctl bench-deps
	scripts/bench $*
bench-setup: labctl packages ; scripts/bench setup

# README's picture of a terminal: setup on a VPS and join at home, in the lab.
recording: labctl node ; scripts/recording

fuzz faults race-proxy soak-proxy: ; scripts/long $@
idle-proxy: labctl ; scripts/long $@

deps: ; @scripts/apt $(LAB_PACKAGES)
test-deps: deps ; @scripts/apt $(TEST_PACKAGES) && scripts/promtool
bench-deps: ; @scripts/apt $(BENCH_PACKAGES)
labctl: deps ; @scripts/labctl
node: ; @scripts/node

clean: ; rm -rf build
