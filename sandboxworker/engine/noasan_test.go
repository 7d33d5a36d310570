//go:build !asan

package engine

const underASan = false
