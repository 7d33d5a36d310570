// Package scheduler decides which isolate runs when, on which thread and for how long.
//
// Duty: read the shard's data socket, hand each event to its tenant's isolate as one turn,
// turn what the isolate says into frames, and hold every tenant to its limits of CPU, wall
// clock and memory. It serves the control channel (load, evict, stats, drain).
//
// Trust: the gateway is trusted. The isolates are not: a record an isolate emits is checked
// against the state of its invocation before a frame is made of it, because the gateway takes a
// bad frame for a compromised process and kills all tenants in it.
//
// How it runs: executors are locked OS threads. One without a runnable tenant reads the socket
// itself, unless another one is reading; so under light load one thread reads, runs and answers
// a request without a wake-up in between. An executor that stays with a tenant for more than a few
// milliseconds is noticed by the watchdog, which has another one take over, and makes one if all are
// busy, up to the slots of the black box; the last one only reads. Who is next is decided by weighted
// fair queueing (queue.go), and whether there is memory for it by the shard's account (memory.go). A
// turn that cannot be stopped is reported to the gateway, which kills the process (overdue.go).
//
// Invariants:
//   - A tenant is run by at most one executor at a time; its isolate and its invocations belong
//     to that executor until it lets go. Everybody else talks to it through its mailbox.
//   - Runnable tenants take turns, each for a quantum and by its share; one tenant's queue delays
//     nobody else's, nor does one tenant's turn as long as there are slots and memory.
//   - A ping is answered as soon as it is read, and somebody reads whatever the others do.
//   - Each invocation sends exactly one done frame, and nothing after it.
//   - The JS clock moves only with outside events and timers, and never backwards.
//   - The black box names the tenant before its JavaScript is entered and clears it after.
package scheduler
