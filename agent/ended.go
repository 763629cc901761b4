// Tells why a process ended: what it did itself, what was done to it and by whom, and what it lacked.

package main

import (
	"syscall"
	"time"

	"bhatti/agent/wire"
)

// sentSignal is the last signal that the agent sent to a process. Its zero value: none was sent.
type sentSignal struct {
	number syscall.Signal
	// reason is why, for signals that are no request of a client.
	reason wire.EndReason
	by     string
}

// exitCodeKilled is how a shell reports that the program it ran was killed.
const exitCodeKilled = 128 + int(syscall.SIGKILL)

// describeEnd is called once, when the process has been waited for.
func describeEnd(status syscall.WaitStatus, leader int, since time.Time, sent sentSignal, kills *memoryKills) wire.Ended {
	ended := wire.Ended{ExitCode: status.ExitStatus(), Reason: wire.EndExited}
	isKilled := status.Signaled() && status.Signal() == syscall.SIGKILL
	if status.Signaled() {
		name, by := signalName(status.Signal()), wire.ByGuest
		ended = wire.Ended{ExitCode: 128 + int(status.Signal()), Signal: &name, Reason: wire.EndSignal}
		if sent.number == status.Signal() {
			by = sent.by
			if sent.reason != "" {
				ended.Reason = sent.reason
			}
		}
		ended.By = &by
	}
	if ended.ExitCode == 0 {
		return ended
	}
	isOurs := isKilled && sent.number == syscall.SIGKILL
	if (isKilled && !isOurs) || ended.ExitCode == exitCodeKilled && !status.Signaled() {
		kills.awaitCounted()
	}
	detail := wire.EndDetail{MemoryKills: kills.inSession(leader, since), DiskFull: fullness("/")}
	if isKilled && len(detail.MemoryKills) > 0 && detail.MemoryKills[0].Pid == leader {
		by := wire.ByKernel
		ended.Reason, ended.By = wire.EndOutOfMemory, &by
	}
	if detail.MemoryKills != nil || detail.DiskFull != "" {
		ended.Detail = &detail
	}
	return ended
}

// fullBytes is the space below which a filesystem counts as full.
const fullBytes = 64 << 10

// fullness tells what a filesystem has no more of for users other than root; empty if it has both.
func fullness(path string) wire.DiskFull {
	var about syscall.Statfs_t
	if syscall.Statfs(path, &about) != nil || about.Blocks == 0 {
		return ""
	}
	if about.Bavail*uint64(about.Bsize) < fullBytes {
		return wire.NoSpace
	}
	if about.Files > 0 && about.Ffree == 0 {
		return wire.NoInodes
	}
	return ""
}
