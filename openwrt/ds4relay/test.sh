#!/bin/sh
# The packages feed runs this with a package's name and version after it has installed the package.
case "$1" in
ds4relay)
	ds4relay version | grep -F "ds4relay $2 "
	;;
ds4relay-proxy)
	ds4relay-proxy --version | grep -F "ds4relay-proxy $2 "
	;;
esac
