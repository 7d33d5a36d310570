package suites

import (
	"context"
	"testing"
	"time"
)

func TestAll(t *testing.T) {
	bin := Binaries{"/work/wt/sec/bin/bulkhead-launcher", "/work/wt/sec/bin/bulkhead", "/work/wt/sec/bin/bulkhead-securityseat"}
	begin := time.Now()
	_, err := Run(context.Background(), Options{Binaries: bin, Modes: []Mode{Root, Rootless}, Progress: func(p Promise, r Result) {
		t.Logf("%v %+v", time.Since(begin), r)
	}})
	if err != nil {
		t.Fatal(err)
	}
}
