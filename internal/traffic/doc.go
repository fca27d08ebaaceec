// Package traffic counts what each forward has carried since somebody first asked. Connections count themselves, and
// the kernel reports the figures when they end; rules do not see the packets of a flowtable.
package traffic
