// Package kernel observes what the kernel has and applies steps to it: rtnetlink, nft and sysctls. It decides nothing.
package kernel
