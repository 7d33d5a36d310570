package launcher

import "testing"

func TestSeccompRecord(t *testing.T) {
	const head = "4,1034,5091,-;audit: type=1326 audit(1700000000.1:7): auid=4294967295 uid=7 gid=7 ses=1 "
	cases := []struct {
		name, record string
		pid          int
		nr           int32
		ok           bool
	}{
		{"kill", head + `pid=12 comm="worker" exe="/x" sig=31 arch=c000003e syscall=41 compat=0 ip=0x1 code=0x80000000`, 12, 41, true},
		{"odd name in hexadecimal", head + `pid=12 comm=7379733D31 sig=31 arch=c000003e syscall=0 compat=0`, 12, 0, true},
		{"other audit record", "4,1,1,-;audit: type=1400 audit(1.1:7): pid=12 syscall=41", 0, 0, false},
		{"no number", head + "pid=12 sig=31", 12, -1, false},
		{"no pid", head + "syscall=41", -1, 41, false},
		{"garbage", head + "pid=x syscall=41", 0, 0, false},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			pid, nr, ok := seccompRecord(tc.record)
			if pid != tc.pid || nr != tc.nr || ok != tc.ok {
				t.Errorf("seccompRecord = %d, %d, %v, want %d, %d, %v", pid, nr, ok, tc.pid, tc.nr, tc.ok)
			}
		})
	}
}
