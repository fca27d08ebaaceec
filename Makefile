# ds4relay: `make demo` shows it, `make test` tests it; both set up what they need (Debian, root, Go).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
export DEBIAN_FRONTEND := noninteractive

# The version of packages, and of the program where git knows no more.
PACKAGE_VERSION := 0.1.0
VERSION := $(shell git describe --tags --dirty 2>/dev/null || echo $(PACKAGE_VERSION)-dev)
CACHE ?= $(HOME)/.cache/ds4relay
BUILD := $(CURDIR)/build
GOFLAGS_RELEASE := -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)"
# For routers: without inlining the program is a seventh smaller, and what it does takes no longer than starting it.
GOFLAGS_ROUTER := $(GOFLAGS_RELEASE) -gcflags=all=-l -tags openwrt
# Go 1.26 has a new garbage collector, 15 kB in the .ipk, that a program which ends at once has no use for.
GOENV_ROUTER := CGO_ENABLED=0 GOOS=linux $(if $(findstring go1.26,$(shell go version 2>/dev/null)),GOEXPERIMENT=nogreenteagc)
NFPM := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# What the lab needs: QEMU and a kernel to boot, and the programs that the tests compare with and listen with.
PACKAGES := qemu-system-x86 qemu-system-mips qemu-system-arm busybox-static cpio kmod xz-utils zstd iproute2 iputils-ping procps diffutils nftables ethtool curl iperf3 shellcheck zopfli lintian mmdebstrap e2fsprogs qemu-utils

# LAB=vm boots Debian's kernel in QEMU; LAB=host uses namespaces on this machine's own kernel.
LAB ?= vm
export DS4RELAY_CACHE := $(CACHE)/lab
LABCTL := $(BUILD)/labctl
ifeq ($(LAB),vm)
IN_LAB := $(LABCTL) exec --
LAB_EXEC := -exec "$(IN_LAB)"
else
IN_LAB := env DS4RELAY_LAB=host
LAB_EXEC :=
export DS4RELAY_LAB := host
endif

.PHONY: all demo test unit labs lab lint bench bench-compare bench-compare-with bench-compare-without bench-proxy fuzz size deps labctl clean ipk apk test-ipk lab-routers lab-mipsel lab-arm64 router-mipsel router-arm64

all: $(BUILD)/ds4relay

# ROUTER=mipsel or arm64: the home's router is a machine of its own, with that CPU.
demo: deps labctl $(BUILD)/ds4relay $(addprefix router-,$(ROUTER))
	@DS4RELAY_COLOUR=$$([ -t 1 ] && echo 1 || echo 0) $(if $(ROUTER),$(LABCTL) exec $(call router_flags,$(ROUTER)) --,$(IN_LAB)) $(LABCTL) demo $(BUILD)/ds4relay

test: unit lab lab-routers labs size test-ipk test-deb test-luci-app

# Two releases at a time; each prints when it has ended. What is measured or watched packet by packet runs alone, before.
labs:
	@$(MAKE) --no-print-directory -j 2 --output-sync=target lab-bookworm lab-trixie

unit: deps
	go test ./...

lab: deps labctl
	go test -tags lab -count=1 -parallel 4 -timeout 40m $(subst exec --,exec -timeout 45m --,$(LAB_EXEC)) ./internal/lab ./cmd/ds4relay

# The home's end on a router of its own: a virtual machine with another CPU, whose root is made of the package.
ROUTER_mipsel := mipsel_24kc
ROUTER_arm64 := aarch64_generic
lab-routers: lab-mipsel lab-arm64
lab-mipsel lab-arm64: lab-%: deps labctl router-%
	go test -tags "lab router" -count=1 -timeout 10m -run '^TestRouterVM$$' -v -exec "$(LABCTL) exec $(call router_flags,$*) --" ./cmd/ds4relay

router_flags = -router $(1) -agent $(BUILD)/agent-$(1) -package $(PACKAGES_DIR)/ds4relay_$(PACKAGE_VERSION)-1_$(ROUTER_$(1)).ipk
router-mipsel router-arm64: router-%: deps
	@$(MAKE) --no-print-directory ipk ARCHES=$(ROUTER_$*)
	@CGO_ENABLED=0 GOOS=linux $(ARCH_$(ROUTER_$*)) go build -trimpath -ldflags "-s -w" -o $(BUILD)/agent-$* ./internal/lab/agent

lint: deps lint-luci
	@out=$$(gofmt -l cmd internal); test -z "$$out" || { echo "gofmt: $$out"; exit 1; }
	go vet ./...
	go vet -tags lab ./...
	go vet -tags "lab router" ./...
	go vet -tags "lab debian" ./...
	go vet -tags openwrt ./...
	go run $(STATICCHECK) ./...
	go run $(STATICCHECK) -tags lab ./...
	shellcheck .ci/run
	shellcheck -s dash $$(grep -rlE --exclude=Makefile "^#!/bin/sh" files openwrt debian)

# The figures of README and docs: `up` against the same steps by hand; the way through the relay against the one set up by
# hand, where a CPU that counts instructions makes the figures repeatable.
# FRP names a directory with frps and frpc, which no package has. The comparison's table and chart go to docs/benchmark.md.
BENCH_PACKAGES := haproxy socat 6tunnel wireguard-tools
bench: PACKAGES += $(BENCH_PACKAGES)
bench: deps labctl $(BUILD)/ds4relay bench-compare
	DS4RELAY_BINARY=$(BUILD)/ds4relay go test -tags "lab bench" -count=1 -timeout 30m -run '^TestBench(Up|Scale)$$' -v $(LAB_EXEC) ./cmd/ds4relay
	go test -tags "lab bench" -count=1 -timeout 30m -run '^TestBench(Path|Variants|Forwards)$$' -v $(subst exec --,exec -icount -timeout 30m --,$(LAB_EXEC)) ./cmd/ds4relay

bench-compare: PACKAGES += $(BENCH_PACKAGES)
bench-compare: deps labctl
	@mkdir -p $(BUILD)/bench
	@$(MAKE) --no-print-directory -j 2 bench-compare-without bench-compare-with
	@cp $(BUILD)/bench/benchmark.svg docs/benchmark.svg
	@cat $(BUILD)/bench/without.md $(BUILD)/bench/with.md >$(BUILD)/bench/benchmark-table.md
	@sed -i -e '/^<!-- table -->/,/^<!-- end -->/{//!d}' -e '/^<!-- table -->/r $(BUILD)/bench/benchmark-table.md' docs/benchmark.md

# A boot for each half: their CPUs count instructions, one core each.
bench-compare-without bench-compare-with: bench-compare-%:
	DS4RELAY_BENCH_DIR=/mnt/share DS4RELAY_FRP=$(FRP) go test -tags "lab bench" -count=1 -timeout 60m -run '^TestBenchCompare$$/^$*$$' -v $(subst exec --,exec -icount -timeout 60m -share $(BUILD)/bench --,$(LAB_EXEC)) ./cmd/ds4relay

# Proxies side by side, in namespaces on this machine's own kernel. With flags in PROXYBENCH, such as "-n 3 -only HAProxy", the
# documentation stays as it is.
bench-proxy: PACKAGES := iproute2 ethtool haproxy socat 6tunnel nginx-light libnginx-mod-stream
bench-proxy: deps $(BUILD)/ds4relay
	@mkdir -p $(BUILD)/bench
	go build -o $(BUILD)/proxybench ./internal/lab/proxybench
	$(BUILD)/proxybench -ds4relay $(BUILD)/ds4relay -frp "$(FRP)" $(or $(PROXYBENCH),-out $(BUILD)/bench)
ifndef PROXYBENCH
	@cp $(BUILD)/bench/benchmark-proxy.svg docs/
	@sed -i -e '/^<!-- table -->/,/^<!-- end -->/{//!d}' -e '/^<!-- table -->/r $(BUILD)/bench/benchmark-proxy-table.md' docs/benchmark-proxy.md
endif

fuzz:
	go test -fuzz FuzzParse -fuzztime 60s ./internal/uci
	go test -fuzz FuzzNew -fuzztime 60s ./internal/config
	go test -fuzz FuzzDecode -fuzztime 60s ./internal/packet
	go test -run '^$$' -fuzz FuzzHeader -fuzztime 60s ./internal/proxy

# Bytes compared over many random connections under the race detector, and two minutes of churn that leave nothing open.
PROXY_CONNECTIONS := 10000
PROXY_SOAK := 2m
.PHONY: race-proxy soak-proxy idle-proxy
race-proxy: deps
	go test -race -count=1 -timeout 30m -run '^TestRandom' -v ./internal/proxy -connections $(PROXY_CONNECTIONS)
# Twenty thousand connections, in the virtual machine, which allows as many descriptors: three minutes.
idle-proxy: deps labctl
	go test -c -o $(BUILD)/proxy.test ./internal/proxy
	cd internal/proxy && $(LABCTL) exec -mem 6144 -timeout 15m -- sh -c 'ulimit -n 100000; exec $(BUILD)/proxy.test -test.run "^TestIdleConnections$$" -test.v'
soak-proxy: deps
	go test -count=1 -timeout 10m -run '^TestSoak$$' -v ./internal/proxy -soak $(PROXY_SOAK)

# The router's program has to fit into a router's flash.
MIPS_LIMIT := 1200000
size: deps
	@mkdir -p $(BUILD)
	$(GOENV_ROUTER) GOARCH=mips GOMIPS=softfloat go build $(GOFLAGS_ROUTER) -o $(BUILD)/ds4relay-mips ./cmd/ds4relay
	@size=$$(xz -9e -c $(BUILD)/ds4relay-mips | wc -c); echo "ds4relay for mips softfloat: $$size bytes as xz -9e (at most $(MIPS_LIMIT))"; test $$size -le $(MIPS_LIMIT)

# Packages for OpenWrt without its SDK: its name of an architecture, and Go's. ARCHES chooses some.
ARCH_mips_24kc := GOARCH=mips GOMIPS=softfloat
ARCH_mipsel_24kc := GOARCH=mipsle GOMIPS=softfloat
ARCH_mipsel_74kc := GOARCH=mipsle GOMIPS=softfloat
ARCH_arm_cortex-a7_neon-vfpv4 := GOARCH=arm GOARM=7
ARCH_arm_cortex-a9_vfpv3-d16 := GOARCH=arm GOARM=7
ARCH_arm_cortex-a15_neon-vfpv4 := GOARCH=arm GOARM=7
ARCH_aarch64_cortex-a53 := GOARCH=arm64
ARCH_aarch64_cortex-a72 := GOARCH=arm64
ARCH_aarch64_cortex-a76 := GOARCH=arm64
ARCH_aarch64_generic := GOARCH=arm64
ARCH_x86_64 := GOARCH=amd64
ARCH_i386_pentium4 := GOARCH=386 GO386=sse2
ARCHES ?= $(patsubst ARCH_%,%,$(filter ARCH_%,$(.VARIABLES))) all
PACKAGES_DIR := $(BUILD)/packages

# Two builds of one commit are identical: the files' time is the commit's.
export SOURCE_DATE_EPOCH := $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

# The LuCI app and its translations are for every architecture, all; their names are those of LuCI's own build.
LUCI_LANGUAGES = $(filter-out templates,$(notdir $(wildcard $(LUCI_APP)/po/*)))
LUCI_NAME_de := Deutsch (German)
LUCI_STAGE := $(BUILD)/openwrt/luci

ipk apk: PACKAGES := zopfli
ipk apk: %: deps $(if $(filter all,$(ARCHES)),luci-stage)
	@mkdir -p $(PACKAGES_DIR)
	@mkdir -p $(BUILD)/openwrt; sed -n 's/^ *dst: \(.*\)/\1/p' openwrt/nfpm.yaml | grep -v ^/lib/apk/ >$(BUILD)/openwrt/ds4relay.list
	@echo /etc/config/ds4relay >$(BUILD)/openwrt/ds4relay.conffiles
	@sha256sum files/openwrt/etc/config/ds4relay | sed 's|\([^ ]*\).*|/etc/config/ds4relay \1|' >$(BUILD)/openwrt/ds4relay.conffiles_static
	@sed -n 's/^ *dst: \(.*\)/\1/p' openwrt/proxy.yaml | grep -v ^/lib/apk/ >$(BUILD)/openwrt/ds4relay-proxy.list
	@for script in postinst prerm postupgrade; do sed 's/pkgname=ds4relay/&-proxy/' openwrt/scripts/$$script >$(BUILD)/openwrt/ds4relay-proxy.$$script; done
	@{ cat openwrt/proxy.yaml; echo "scripts: {postinstall: $(BUILD)/openwrt/ds4relay-proxy.postinst, preremove: $(BUILD)/openwrt/ds4relay-proxy.prerm}"; \
	  echo "apk: {scripts: {postupgrade: $(BUILD)/openwrt/ds4relay-proxy.postupgrade}}"; } >$(BUILD)/openwrt/ds4relay-proxy.yaml
	@touch -d @$(SOURCE_DATE_EPOCH) openwrt/scripts/* $(BUILD)/openwrt/ds4relay*.* # nfpm gives the scripts of an .apk the time of their files
	@$(foreach arch,$(filter-out all,$(ARCHES)),$(if $(ARCH_$(arch)),,$(error ARCHES: unknown architecture $(arch); known are all, $(patsubst ARCH_%,%,$(filter ARCH_%,$(.VARIABLES)))))\
	  $(GOENV_ROUTER) $(ARCH_$(arch)) go build $(GOFLAGS_ROUTER) -o $(BUILD)/openwrt/$(arch)/ds4relay ./cmd/ds4relay; \
	  OPENWRT_ARCH=$(arch) PACKAGE_VERSION=$(PACKAGE_VERSION) BINARY=$(BUILD)/openwrt/$(arch)/ds4relay LISTS=$(BUILD)/openwrt \
	    $(call openwrt_package,openwrt/nfpm.yaml,ds4relay,$(arch),$*)\
	  CGO_ENABLED=0 GOOS=linux $(ARCH_$(arch)) go build $(GOFLAGS_RELEASE) -tags openwrt -o $(BUILD)/openwrt/$(arch)/ds4relay-proxy ./cmd/ds4relay-proxy; \
	  OPENWRT_ARCH=$(arch) PACKAGE_VERSION=$(PACKAGE_VERSION) BINARY=$(BUILD)/openwrt/$(arch)/ds4relay-proxy LISTS=$(BUILD)/openwrt \
	    $(call openwrt_package,$(BUILD)/openwrt/ds4relay-proxy.yaml,ds4relay-proxy,$(arch),$*))
	@$(if $(filter all,$(ARCHES)),$(foreach package,luci-app-ds4relay $(addprefix luci-i18n-ds4relay-,$(LUCI_LANGUAGES)),\
	  PACKAGE=$(package) PACKAGE_VERSION=$(PACKAGE_VERSION) \
	  DEPENDS=$(if $(findstring i18n,$(package)),luci-app-ds4relay,ds4relay) \
	  DESCRIPTION="$(if $(findstring i18n,$(package)),Translation for luci-app-ds4relay,LuCI support for ds4relay)" \
	    $(call openwrt_package,$(LUCI_STAGE)/$(package).yaml,$(package),all,$*)))

# openwrt_package: configuration, name, architecture, format.
define openwrt_package
go run $(NFPM) package -f $(1) -p $(4) -t $(PACKAGES_DIR)/$(2)_$(PACKAGE_VERSION)-1_$(3).$(4) >$(BUILD)/nfpm.log || { cat $(BUILD)/nfpm.log; exit 1; }; \
	  $(if $(filter ipk,$(4)),$(if $(filter-out ds4relay-proxy,$(2)),openwrt/squeeze.sh $(PACKAGES_DIR)/$(2)_$(PACKAGE_VERSION)-1_$(3).ipk;)) \
	  stat -c '%n: %s bytes' $(PACKAGES_DIR)/$(2)_$(PACKAGE_VERSION)-1_$(3).$(4);
endef

# What LuCI's luci.mk installs: htdocs as /www, root as /, each language's catalogue and its name.
.PHONY: luci-stage
luci-stage:
	@rm -rf $(LUCI_STAGE); mkdir -p $(LUCI_STAGE)/luci-app-ds4relay/www
	@cp -r $(LUCI_APP)/htdocs/. $(LUCI_STAGE)/luci-app-ds4relay/www; cp -r $(LUCI_APP)/root/. $(LUCI_STAGE)/luci-app-ds4relay
	@$(foreach language,$(LUCI_LANGUAGES),$(if $(LUCI_NAME_$(language)),,$(error LUCI_NAME_$(language): the language's name is missing))\
	  dir=$(LUCI_STAGE)/luci-i18n-ds4relay-$(language); mkdir -p $$dir/usr/lib/lua/luci/i18n $$dir/etc/uci-defaults; \
	  go run ./internal/lmo/po2lmo $(LUCI_APP)/po/$(language)/ds4relay.po $$dir/usr/lib/lua/luci/i18n/ds4relay.$(language).lmo; \
	  echo "uci set luci.languages.$(language)='$(LUCI_NAME_$(language))'; uci commit luci" >$$dir/etc/uci-defaults/luci-i18n-ds4relay-$(language);)
	@for dir in $(LUCI_STAGE)/*; do package=$$(basename $$dir); mkdir -p $$dir.scripts; \
	  for script in postinst postrm; do sed "s/@PACKAGE@/$$package/" openwrt/scripts/luci-$$script >$$dir.scripts/$$script; done; \
	  { cat openwrt/luci.yaml; find $$dir -type f -printf '  - {src: "%p", dst: "/%P"}\n' | sort; \
	    echo "  - {src: $$dir.list, dst: /lib/apk/packages/$$package.list, packager: apk}"; \
	    echo "scripts: {postinstall: $$dir.scripts/postinst, postremove: $$dir.scripts/postrm}"; \
	    echo "apk: {scripts: {postupgrade: $$dir.scripts/postinst}}"; } >$$dir.yaml; \
	  find $$dir -type f -printf '/%P\n' | sort >$$dir.list; done
	@chmod -R u=rwX,go=rX $(LUCI_STAGE); find $(LUCI_STAGE) -exec touch -h -d @$(SOURCE_DATE_EPOCH) {} +

# Packages for Debian: its name of an architecture, and Go's. DEB_ARCHES chooses some.
DEB_amd64 := GOARCH=amd64
DEB_arm64 := GOARCH=arm64
DEB_armhf := GOARCH=arm GOARM=7
DEB_i386 := GOARCH=386 GO386=sse2
DEB_ARCHES ?= amd64 arm64 armhf i386
DEB_STAGE := $(BUILD)/debian

# The tree that is installed, but for conffiles: manuals are compressed, changelog and times are the commit's.
.PHONY: deb test-deb
deb: PACKAGES := zopfli
deb: deps
	@mkdir -p $(PACKAGES_DIR)
	@$(foreach arch,$(DEB_ARCHES),$(if $(DEB_$(arch)),,$(error DEB_ARCHES: unknown architecture $(arch)))\
	  rm -rf $(DEB_STAGE)/$(arch); mkdir -p $(DEB_STAGE)/$(arch)/root/usr/sbin; \
	  CGO_ENABLED=0 GOOS=linux $(DEB_$(arch)) go build $(GOFLAGS_RELEASE) -o $(DEB_STAGE)/$(arch)/root/usr/sbin/ds4relay ./cmd/ds4relay; \
	  cp -r files/debian/usr $(DEB_STAGE)/$(arch)/root; gzip -9n $(DEB_STAGE)/$(arch)/root/usr/share/man/man*/*; \
	  chmod -R u=rwX,go=rX $(DEB_STAGE)/$(arch)/root; \
	  printf 'ds4relay (%s-1) unstable; urgency=low\n\n  * See the history of the repository.\n\n -- The ds4relay developers <ds4relay@users.noreply.github.com>  %s\n' \
	    $(PACKAGE_VERSION) "$$(date -u -R -d @$(SOURCE_DATE_EPOCH))" | gzip -9n >$(DEB_STAGE)/$(arch)/root/usr/share/doc/ds4relay/changelog.Debian.gz; \
	  find $(DEB_STAGE)/$(arch) -exec touch -h -d @$(SOURCE_DATE_EPOCH) {} +; \
	  DEB_ARCH=$(arch) PACKAGE_VERSION=$(PACKAGE_VERSION) STAGE=$(DEB_STAGE)/$(arch) \
	    go run $(NFPM) package -f debian/nfpm.yaml -p deb -t $(PACKAGES_DIR)/ds4relay_$(PACKAGE_VERSION)-1_$(arch).deb >/dev/null; \
	  stat -c '%n: %s bytes' $(PACKAGES_DIR)/ds4relay_$(PACKAGE_VERSION)-1_$(arch).deb;)

# Debian's own checker finds no error in the packages, and they are the same when they are built again.
test-deb: deps
	@$(MAKE) --no-print-directory deb DEB_ARCHES="amd64 armhf" BUILD=$(BUILD)/first >/dev/null
	@$(MAKE) --no-print-directory deb DEB_ARCHES="amd64 armhf" BUILD=$(BUILD)/second >/dev/null
	@for p in $(BUILD)/first/packages/*.deb; do cmp $$p $(BUILD)/second/packages/$$(basename $$p); echo "$$(basename $$p): built twice alike"; done
	lintian --allow-root --fail-on error $(BUILD)/first/packages/*.deb

# The VPS's end on a Debian of its own: a virtual machine whose first process is systemd, from the package, and its next version.
PACKAGE_NEXT := 0.1.1
.PHONY: lab-debian lab-bookworm lab-trixie debian-packages
lab-debian: lab-bookworm lab-trixie
debian-packages: deps
	@$(MAKE) --no-print-directory deb DEB_ARCHES=amd64
	@$(MAKE) --no-print-directory deb DEB_ARCHES=amd64 PACKAGE_VERSION=$(PACKAGE_NEXT) VERSION=$(PACKAGE_NEXT)
	@CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o $(BUILD)/agent-amd64 ./internal/lab/agent
# The proxies' unit is tried on one of them.
lab-bookworm lab-trixie: lab-%: deps labctl debian-packages
	@$(LABCTL) prepare $*
	DS4RELAY_DEB=$(PACKAGES_DIR)/ds4relay_$(PACKAGE_VERSION)-1_amd64.deb DS4RELAY_DEB_NEXT=$(PACKAGES_DIR)/ds4relay_$(PACKAGE_NEXT)-1_amd64.deb DS4RELAY_VERSION_NEXT=$(PACKAGE_NEXT) \
	  go test -tags "lab debian" -count=1 -timeout 20m -run '^TestDebian$(if $(filter bookworm,$*),(Proxy)?)$$' -v -exec "$(LABCTL) exec -timeout 20m -debian $* -agent $(BUILD)/agent-amd64 --" ./cmd/ds4relay

# Each package fits a router, is the same when it is built again, from files of another time, and has in it what it should.
IPK_LIMIT := 1500000
PROXY_IPK_LIMIT := 1800000
test-ipk:
	@for build in first second; do touch openwrt/scripts/* $$(find files/openwrt $(LUCI_APP) -type f); \
	  $(MAKE) --no-print-directory ipk apk ARCHES="mips_24kc x86_64 all" BUILD=$(BUILD)/$$build >/dev/null; done
	@for p in $(BUILD)/first/packages/*.{ipk,apk}; do cmp $$p $(BUILD)/second/packages/$$(basename $$p); \
	  case $$p in */ds4relay-proxy*) limit=$(PROXY_IPK_LIMIT) ;; *) limit=$(IPK_LIMIT) ;; esac; \
	  size=$$(stat -c %s $$p); echo "$$(basename $$p): $$size bytes, built twice alike$$([ $${p##*.} = apk ] || echo " (at most $$limit)")"; \
	  test $${p##*.} = apk || test $$size -le $$limit; done
	DS4RELAY_PACKAGES=$(BUILD)/first/packages go test -count=1 -run '^TestPackages$$' ./internal/openwrt

# The LuCI app. Node's packages are in the cache; the lock file says which.
NODE := $(CACHE)/node
LUCI_APP := luci-app/luci-app-ds4relay
LUCI_JS := $(shell find $(LUCI_APP)/htdocs -name '*.js' | sort)
export DS4RELAY_NODE := $(NODE)
export DS4RELAY_BINARY := $(BUILD)/ds4relay-router

.PHONY: node lint-luci test-luci-app luci-pot luci-po test-luci
node:
	@command -v node npm xgettext >/dev/null || { echo "installing nodejs npm gettext"; \
	  { apt-get -qq update && apt-get -qq -y --no-install-recommends install $$(command -v node >/dev/null || echo nodejs) $$(command -v npm >/dev/null || echo npm) gettext; } >/dev/null; }
	@cmp -s luci-app/test/package-lock.json $(NODE)/installed || { mkdir -p $(NODE); cp luci-app/test/package.json luci-app/test/package-lock.json $(NODE)/; \
	  (cd $(NODE) && npm ci --silent --no-audit --no-fund) && cp luci-app/test/package-lock.json $(NODE)/installed; }

lint-luci: node
	$(NODE)/node_modules/.bin/eslint -c luci-app/test/eslint.config.mjs luci-app

# The views' logic under node against the program, and the catalogues: what is in the template is in the source, and German is complete.
test-luci-app: node luci-pot
	CGO_ENABLED=0 go build -tags openwrt -o $(DS4RELAY_BINARY) ./cmd/ds4relay
	node --test luci-app/test/*.test.mjs
	@diff <(grep ^msgid $(LUCI_APP)/po/templates/ds4relay.pot) <(grep ^msgid $(BUILD)/ds4relay.pot) || { echo "the template is not as the source: make luci-po"; exit 1; }
	@for po in $(wildcard $(LUCI_APP)/po/*/*.po); do msgfmt -c -o /dev/null $$po; msgcmp $$po $(BUILD)/ds4relay.pot; done

luci-pot: node
	@mkdir -p $(BUILD)
	@node luci-app/test/titles.mjs >$(BUILD)/titles.js
	@xgettext --from-code=UTF-8 -L JavaScript -k_ -kM --sort-output --no-location --no-wrap --package-name=luci-app-ds4relay -o $(BUILD)/ds4relay.pot $(LUCI_JS) $(BUILD)/titles.js

# After texts have changed: the template anew, and into the catalogues.
luci-po: luci-pot
	@mkdir -p $(LUCI_APP)/po/templates; cp $(BUILD)/ds4relay.pot $(LUCI_APP)/po/templates/ds4relay.pot
	@for po in $(wildcard $(LUCI_APP)/po/*/*.po); do msgmerge -q -U --backup=none --no-wrap --no-fuzzy-matching $$po $(BUILD)/ds4relay.pot; msgattrib --no-obsolete --no-wrap -o $$po $$po; msgfmt --statistics -o /dev/null $$po; done

# In a browser, on LuCI's own code: LUCI is a LuCI source tree. luci-screens takes the pictures of docs/luci.
.PHONY: luci-browser luci-screens
luci-browser: node
	@test -n "$(LUCI)" || { echo "usage: make test-luci LUCI=<a LuCI source tree>"; exit 2; }
	@command -v chromium pngquant >/dev/null || { echo "installing chromium pngquant"; apt-get -qq update && apt-get -qq -y --no-install-recommends install chromium pngquant >/dev/null; }
	CGO_ENABLED=0 go build -tags openwrt -o $(DS4RELAY_BINARY) ./cmd/ds4relay
	CGO_ENABLED=0 go build -o $(BUILD)/lucitest ./internal/lucitest

test-luci luci-screens: export DS4RELAY_LUCI = $(LUCI)
test-luci luci-screens: export DS4RELAY_LUCITEST_SERVER = $(BUILD)/lucitest
test-luci: luci-browser
	node --test luci-app/test/*.walk.mjs

luci-screens: luci-browser
	@mkdir -p docs/luci; node luci-app/test/screens.mjs docs/luci

$(BUILD)/ds4relay: FORCE
	@mkdir -p $(BUILD)
	CGO_ENABLED=0 go build $(GOFLAGS_RELEASE) -o $@ ./cmd/ds4relay

labctl: deps
	@mkdir -p $(BUILD)
	@go build -o $(LABCTL) ./internal/lab/labctl
	@if [ "$(LAB)" = vm ]; then $(LABCTL) prepare; fi

# No package that is installed may start a service here.
deps:
	@command -v go >/dev/null || { echo "Go is missing; ds4relay needs Go 1.26 or later"; exit 1; }
	@missing=$$(for p in $(PACKAGES); do dpkg-query -W -f '$${Status}\n' $$p 2>/dev/null | grep -q '^install ok' || echo $$p; done); \
	if [ -n "$$missing" ]; then echo "installing" $$missing; \
	  test -e /usr/sbin/policy-rc.d || { printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; trap 'rm /usr/sbin/policy-rc.d' EXIT; }; \
	  { apt-get -qq update && apt-get -qq -y --no-install-recommends install $$missing; } >$(or $(TMPDIR),/tmp)/ds4relay-apt.log 2>&1 \
	  || { cat $(or $(TMPDIR),/tmp)/ds4relay-apt.log; exit 1; }; fi

clean:
	rm -rf $(BUILD)

FORCE:
