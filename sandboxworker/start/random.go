package start

import (
	"crypto/rand"
	"runtime"
	"sync"
)

// stockRandom has Go make, before the seal, the room that crypto/rand needs for so many threads at once.
// With the vDSO's getrandom each thread takes a piece of special pages (MAP_DROPPABLE), which Go maps when
// it runs out of them: after the seal that mapping would end the process. A thread that ends gives its
// piece back, so it is enough that as many have once been in use together.
func stockRandom(threads int) {
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
