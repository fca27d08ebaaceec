// Package reconcile carries out the commands up, down, plan and status: it fetches what the deciding packages need and
// hands their decisions to the kernel.
package reconcile
