package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// binaries are the files that make up a host.
type binaries struct{ self, launcher, gateway, worker string }

// findBinaries finds the other three, the worker in workerDir if that is not "".
func findBinaries(workerDir string) (binaries, error) {
	self, places, err := binaryPlaces()
	if err != nil {
		return binaries{}, err
	}
	b := binaries{self: self}
	if b.launcher, err = findBinary("bulkhead-launcher", places); err != nil {
		return b, err
	}
	if b.gateway, err = findBinary("bulkhead-gateway", places); err != nil {
		return b, err
	}
	if workerDir != "" {
		places = []string{workerDir}
	}
	b.worker, err = findBinary("bulkhead-worker", places)
	return b, err
}

// findSeat finds the attacker's seat of the security suites, which no host needs.
func findSeat() (string, error) {
	_, places, err := binaryPlaces()
	if err != nil {
		return "", err
	}
	return findBinary("bulkhead-securityseat", places)
}

// binaryPlaces are this binary, and where the others are: beside it, then in ../libexec/bulkhead,
// where packages put what is not typed.
func binaryPlaces() (self string, places []string, err error) {
	self, err = os.Executable()
	if err == nil {
		self, err = filepath.EvalSymlinks(self)
	}
	if err != nil {
		return "", nil, fmt.Errorf("find this binary: %w", err)
	}
	dir := filepath.Dir(self)
	return self, []string{dir, filepath.Join(dir, "..", "libexec", "bulkhead")}, nil
}

// findBinary finds an executable file in one of the places.
func findBinary(name string, in []string) (string, error) {
	for _, d := range in {
		p := filepath.Join(d, name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return filepath.Abs(p)
		}
	}
	return "", fmt.Errorf("%s is not in %s; build it with `make build`, or install with `make install`", name, strings.Join(in, " or "))
}
