// How a process ended, and the kernel's kills for memory; the twin of src/guest/ended.ts.

package wire

// Ended describes the end of a process. A process that a signal ended has the exit code 128 + its number.
type Ended struct {
	ExitCode int        `json:"exit_code"`
	Signal   *string    `json:"signal"`
	Reason   EndReason  `json:"reason"`
	By       *string    `json:"by"`
	Detail   *EndDetail `json:"detail"`
}

// EndReason is why a process ended.
type EndReason string

// The reasons. A process that ends on its own after a signal it has caught has exited.
const (
	EndExited       EndReason = "exited"
	EndSignal       EndReason = "signal"
	EndTimeLimit    EndReason = "time_limit"
	EndOutOfMemory  EndReason = "out_of_memory"
	EndDisconnected EndReason = "disconnected"
)

// The senders of a signal that the agent knows by itself. Others are words of the host.
const (
	ByAgent    = "agent"
	ByGuest    = "guest"
	ByKernel   = "kernel"
	ByShutdown = "shutdown"
)

// EndDetail has circumstances of an end, each only if there is one.
type EndDetail struct {
	// MemoryKills are the kernel's kills in the session of the process, its own first.
	MemoryKills []MemoryKill `json:"memory_kills,omitempty"`
	// DiskFull tells that the root filesystem had no space, or no inode, left at the end.
	DiskFull DiskFull `json:"disk_full,omitempty"`
}

// DiskFull is the part of a filesystem that is used up.
type DiskFull string

// The parts.
const (
	NoSpace  DiskFull = "space"
	NoInodes DiskFull = "inodes"
)

// MemoryKill is a kill by the kernel for lack of memory. MemoryKib is the guest's whole memory.
type MemoryKill struct {
	Pid  int    `json:"pid"`
	Name string `json:"name"`
	// Session is the leader of its session; 0 if the process was gone before it could be asked.
	Session int `json:"session"`
	// InCgroup tells that a control group had no memory left, and the guest may have.
	InCgroup  bool  `json:"in_cgroup"`
	AnonKib   int   `json:"anon_kib"`
	FileKib   int   `json:"file_kib"`
	ShmemKib  int   `json:"shmem_kib"`
	MemoryKib int   `json:"memory_kib"`
	UnixMs    int64 `json:"unix_ms"`
}

// MemoryNotice tells a watcher of a kill.
type MemoryNotice struct {
	MemoryKill MemoryKill `json:"memory_kill"`
}
