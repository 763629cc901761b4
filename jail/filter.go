// A filter for the system calls that would take disk space past the limit on a file's size: the kernel enforces
// that limit only for calls that make a file longer, and space can also be allocated behind a file's end. QEMU adds
// its own filter to this one.

package main

import "syscall"

const (
	sysIoUringSetup = 425
	// Calls of the x32 kind have this bit and reach the same functions.
	x32Calls = 0x4000_0000

	archX8664         = 0xc000_003e
	numberAt          = 0
	archAt            = 4
	secondArgumentAt  = 24
	seccompKill       = 0x8000_0000
	seccompError      = 0x0005_0000
	seccompAllow      = 0x7fff_0000
	prSetSeccomp      = 22
	seccompModeFilter = 2

	fallocateTake  = 0
	fallocatePunch = 0x03 // and keep the size
	fallocateZero  = 0x10

	// Allocate space whatever the file's size, like fallocate with FALLOC_FL_KEEP_SIZE.
	ioctlReserve   = 0x4030_5828
	ioctlReserve64 = 0x4030_582a
	ioctlZeroRange = 0x4030_5839
)

type program []syscall.SockFilter

func load(offset uint32) syscall.SockFilter {
	return syscall.SockFilter{Code: syscall.BPF_LD | syscall.BPF_W | syscall.BPF_ABS, K: offset}
}

func answer(value uint32) syscall.SockFilter {
	return syscall.SockFilter{Code: syscall.BPF_RET | syscall.BPF_K, K: value}
}

func refusal(errno syscall.Errno) syscall.SockFilter { return answer(seccompError | uint32(errno)) }

// when runs the body if the loaded value compares so with the given one, and otherwise skips it.
func when(comparison uint16, value uint32, body ...syscall.SockFilter) program {
	jump := syscall.SockFilter{
		Code: syscall.BPF_JMP | syscall.BPF_K | comparison, Jf: uint8(len(body)), K: value,
	}
	return append(program{jump}, body...)
}

func joined(parts ...program) (all program) {
	for _, part := range parts {
		all = append(all, part...)
	}
	return all
}

func spaceFilter() program {
	const equal, atLeast = syscall.BPF_JEQ, syscall.BPF_JGE
	allow := answer(seccompAllow)
	modes := joined(
		program{load(secondArgumentAt)},
		when(equal, fallocateTake, allow),
		when(equal, fallocatePunch, allow),
		when(equal, fallocateZero, allow),
		program{refusal(syscall.EOPNOTSUPP)},
	)
	requests := joined(
		program{load(secondArgumentAt)},
		when(equal, ioctlReserve, refusal(syscall.ENOTTY)),
		when(equal, ioctlReserve64, refusal(syscall.ENOTTY)),
		when(equal, ioctlZeroRange, refusal(syscall.ENOTTY)),
		program{allow},
	)
	return joined(
		program{load(archAt)},
		// Other architectures number their calls differently.
		program{{Code: syscall.BPF_JMP | syscall.BPF_K | equal, Jt: 1, K: archX8664}, answer(seccompKill)},
		program{load(numberAt)},
		when(atLeast, x32Calls, refusal(syscall.ENOSYS)),
		// The filter cannot see requests made through io_uring, and QEMU works without it.
		when(equal, sysIoUringSetup, refusal(syscall.ENOSYS)),
		when(equal, syscall.SYS_FALLOCATE, modes...),
		when(equal, syscall.SYS_IOCTL, requests...),
		program{allow},
	)
}
