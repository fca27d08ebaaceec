// Package reconcile implements the commands up, down, plan and status: it collects what the deciding packages need and
// applies their decisions to the kernel.
package reconcile
