#!/bin/sh -eu
# Packs the files of an .ipk again with zopfli, whose gzip is a sixteenth smaller. Two runs give the same bytes.
ipk=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
tar -xzf "$ipk" -C "$dir"
gunzip "$dir/data.tar.gz"
zopfli --i5 "$dir/data.tar"
rm "$dir/data.tar"
tar -C "$dir" --sort=name --owner=0 --group=0 --numeric-owner --mode=0644 --mtime="@$SOURCE_DATE_EPOCH" \
	-cf "$dir/ipk.tar" ./debian-binary ./control.tar.gz ./data.tar.gz
gzip -9nc "$dir/ipk.tar" >"$ipk"
