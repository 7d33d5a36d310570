package start

import (
	"crypto/rand"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// stockRandom has Go make, before the seal, the room that crypto/rand needs for so many threads at once.
// With the vDSO's getrandom each thread takes a piece of special pages (MAP_DROPPABLE), which Go maps when
// it runs out of them: after the seal that mapping would end the process. A thread that ends gives its
// piece back, so it is enough that as many have once been in use together.
//
// Each thread has a stack of 8 MiB that counts against RLIMIT_DATA: a process with little memory has fewer
// threads, and is asked for fewer here.
func stockRandom(threads int) {
	var data unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_DATA, &data); err == nil {
		threads = min(threads, max(4, int(min(data.Cur, 1<<40)/(24<<20))))
	}
	var all, done sync.WaitGroup
	all.Add(threads)
	done.Add(threads)
	for range threads {
		go func() {
			defer done.Done()
			runtime.LockOSThread() // not unlocked: the thread ends with the goroutine
			var b [1]byte
			rand.Read(b[:]) // never fails, says crypto/rand
			all.Done()
			all.Wait()
		}()
	}
	done.Wait()
}
