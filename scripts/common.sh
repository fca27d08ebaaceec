# Sourced by the scripts of this folder: where things are, and what they are called.
# shellcheck shell=bash
# shellcheck disable=SC2034 # the scripts that source this use the variables
set -eu -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

root=$PWD
cache=${CACHE:-$HOME/.cache/ds4relay}
build=${BUILD:-$root/build}
packages=$build/packages

# git_here ARGUMENTS: git for the repository of this directory, not for one around it that has a tarball unpacked in it.
git_here() { GIT_CEILING_DIRECTORIES=$(dirname "$root") git "$@"; }

# The packages' version is in OpenWrt's makefile, which needs it literally; the program's version also contains git's
# description.
package_version=${PACKAGE_VERSION:-$(sed -n 's/^PKG_VERSION:=//p' openwrt/ds4relay/Makefile)}
version=${VERSION:-$(git_here describe --tags --dirty 2>/dev/null || echo "$package_version-dev")}
version=${version#v} # the tag of version 1.2.3 is v1.2.3

# Two builds of one commit are identical: the files' time is the commit's.
SOURCE_DATE_EPOCH=$(git_here log -1 --format=%ct 2>/dev/null || echo 0)
export SOURCE_DATE_EPOCH

# What `ds4relay version` says beside the version.
if commit=$(git_here describe --always --abbrev=12 --exclude='*' --dirty 2>/dev/null); then
	commit+=", $(date -u -d "@$SOURCE_DATE_EPOCH" +%F)"
else
	commit=unknown
fi
ldflags="-s -w -X main.version=$version -X 'main.commit=$commit'"

# The lab's machines, and programs of the tests.
export DS4RELAY_CACHE=$cache/lab DS4RELAY_NODE=$cache/node DS4RELAY_BINARY=$build/ds4relay-router
export DS4RELAY_PROMTOOL=$cache/bin/promtool DS4RELAY_UBUNTU=${UBUNTU:-}
labctl=$build/labctl

# What labctl needs to boot its machine with another Debian's kernel: KERNEL=trixie. Empty: this computer's release.
other_kernel=${KERNEL:+-kernel $KERNEL}

# go_release PROGRAM TAGS FILE: a program as it is installed.
go_release() {
	mkdir -p "$(dirname "$3")"
	CGO_ENABLED=0 GOOS=linux go build -trimpath -buildvcs=false -ldflags "$ldflags" \
		-tags "$2" -o "$3" "./cmd/$1"
}

# go_router FILE: ds4relay for a router. Without inlining it is a seventh smaller, and its work takes no longer than its
# start. Go 1.26's new garbage collector takes 15 kB in the .ipk; a short-lived program does not need it.
go_router() {
	local experiment=
	case $(go version) in *go1.26*) experiment=nogreenteagc ;; esac
	CGO_ENABLED=0 GOOS=linux GOEXPERIMENT=$experiment go build -trimpath -buildvcs=false -gcflags=all=-l -tags openwrt \
		-ldflags "$ldflags" -o "$1" ./cmd/ds4relay
}

# notices debian|openwrt PROGRAM: the copyright file of a package with this program.
notices() {
	mkdir -p "$build"
	[ -n "${mknotices:-}" ] || go build -o "${mknotices:=$build/mknotices}" ./internal/notices/mknotices
	"$mknotices" "$@"
}

# OpenWrt's and Debian's names of architectures, and Go's.
declare -A openwrt_arch=(
	[mips_24kc]="GOARCH=mips GOMIPS=softfloat"
	[mips_4kec]="GOARCH=mips GOMIPS=softfloat"
	[mips_mips32]="GOARCH=mips GOMIPS=softfloat"
	[mipsel_24kc]="GOARCH=mipsle GOMIPS=softfloat"
	[mipsel_24kc_24kf]="GOARCH=mipsle GOMIPS=softfloat"
	[mipsel_74kc]="GOARCH=mipsle GOMIPS=softfloat"
	[mipsel_mips32]="GOARCH=mipsle GOMIPS=softfloat"
	[mips64_mips64r2]="GOARCH=mips64 GOMIPS64=softfloat"
	[mips64_octeonplus]="GOARCH=mips64 GOMIPS64=softfloat"
	[mips64el_mips64r2]="GOARCH=mips64le GOMIPS64=softfloat"
	[arm_arm926ej-s]="GOARCH=arm GOARM=5"
	[arm_fa526]="GOARCH=arm GOARM=5"
	[arm_xscale]="GOARCH=arm GOARM=5"
	[arm_arm1176jzf-s_vfp]="GOARCH=arm GOARM=6"
	[arm_cortex-a7]="GOARCH=arm GOARM=7,softfloat"
	[arm_cortex-a9]="GOARCH=arm GOARM=7,softfloat"
	[arm_cortex-a5_vfpv4]="GOARCH=arm GOARM=7"
	[arm_cortex-a7_neon-vfpv4]="GOARCH=arm GOARM=7"
	[arm_cortex-a7_vfpv4]="GOARCH=arm GOARM=7"
	[arm_cortex-a8_vfpv3]="GOARCH=arm GOARM=7"
	[arm_cortex-a9_neon]="GOARCH=arm GOARM=7"
	[arm_cortex-a9_vfpv3-d16]="GOARCH=arm GOARM=7"
	[arm_cortex-a15_neon-vfpv4]="GOARCH=arm GOARM=7"
	[aarch64_cortex-a53]="GOARCH=arm64"
	[aarch64_cortex-a72]="GOARCH=arm64"
	[aarch64_cortex-a76]="GOARCH=arm64"
	[aarch64_generic]="GOARCH=arm64"
	[riscv64_generic]="GOARCH=riscv64"
	[riscv64_riscv64]="GOARCH=riscv64"
	[loongarch64_generic]="GOARCH=loong64"
	[x86_64]="GOARCH=amd64"
	[i386_pentium4]="GOARCH=386 GO386=sse2"
	[i386_pentium-mmx]="GOARCH=386 GO386=softfloat"
)
declare -A debian_arch=(
	[amd64]="GOARCH=amd64"
	[arm64]="GOARCH=arm64"
	[armhf]="GOARCH=arm GOARM=7"
	[i386]="GOARCH=386 GO386=sse2"
)

# Where the repositories of a release are, and the programs that sign them.
site_url=${SITE_URL:-https://ds4relay.github.io/ds4relay}
signers=(gnupg signify-openbsd openssl)

# gpg_home KEYS: a GNUPGHOME that is gone with the script, with the key of a folder, or empty. It is not in that folder:
# the path of gpg's socket must be short.
gpg_home() {
	GNUPGHOME=$(mktemp -d)
	export GNUPGHOME
	trap 'gpgconf --kill all; rm -rf "$GNUPGHOME"' EXIT
	gpg() { command gpg --batch --no-tty --pinentry-mode loopback --passphrase "" "$@"; }
	[ -z "$1" ] || gpg --quiet --import "$1/ds4relay.gpg"
}

# The routers of the lab: QEMU's name, and OpenWrt's architecture.
declare -A lab_router=([mipsel]=mipsel_24kc [arm64]=aarch64_generic)

# go_agent ROUTER: the lab's agent for one of them, as build/agent-ROUTER.
go_agent() (
	arch_for openwrt_arch "${lab_router[$1]}"
	CGO_ENABLED=0 GOOS=linux go build -trimpath -ldflags "-s -w" -o "$build/agent-$1" ./internal/lab/agent
)

fail() {
	echo "$(basename "$0"): $*" >&2
	exit 1
}

# arch_for TABLE NAME: sets Go's variables for an architecture, for the command after it in a subshell.
arch_for() {
	local -n table=$1
	[ -n "${table[$2]:-}" ] || fail "unknown architecture $2; known are ${!table[*]}"
	local setting
	for setting in ${table[$2]}; do
		export "${setting?}"
	done
}

# busy_loops N: keeps N cores busy until the script ends, four hours at most.
busy_loops() {
	local loops=()
	while [ "${#loops[@]}" -lt "$1" ]; do
		timeout 4h sh -c 'while :; do :; done' &
		loops+=($!)
	done
	# shellcheck disable=SC2064 # the loops of now
	[ "$1" = 0 ] || trap "kill ${loops[*]} 2>/dev/null; wait" EXIT
}
