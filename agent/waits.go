// Threads that wait with a timeout, and its length, as the kernel shows their system calls.

package main

import (
	"encoding/binary"
	"math"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// A thread's wait with a timeout, at most this long from now. It counts if the guest must not be paused past its
// end.
type wait struct {
	atMost time.Duration
	counts bool
}

// goMonitorWait is the wait of the monitor thread of Go's runtime, to the nanosecond, when its program is idle.
const goMonitorWait = time.Minute

// Ways of passing a timeout to a system call.
type timeoutForm int

const (
	// inMs: a number of milliseconds, negative for none.
	inMs timeoutForm = iota
	// inSpec, inVal: a pointer to seconds and nanoseconds, or microseconds; none where it is null.
	inSpec
	inVal
	// untilSpec: a pointer to a time of a clock.
	untilSpec
	// isUnknown: it resumes an earlier call with the remaining time, which the kernel does not show.
	isUnknown
)

type timeout struct {
	form    timeoutForm
	value   uint64
	clock   int
	isFutex bool
}

const (
	sysRestart      = 219
	sysEpollPwait2  = 441
	clockMonotonic  = 1
	clockIsAbsolute = 1
	futexCommand    = 0x7f
	futexIsRealtime = 0x100
)

// The commands of futex. The timeout of the first is a duration, those of the others are points in time.
const (
	futexWait      = 0
	futexLock      = 6
	futexWaitUntil = 9
	futexRequeue   = 11
	futexLockUntil = 13
)

// timeoutOf reads /proc/PID/task/TID/syscall: the number and six arguments, or a word for a thread that is in none.
func timeoutOf(line string) (timeout, bool) {
	fields := strings.Fields(line)
	if len(fields) < 7 {
		return timeout{}, false
	}
	number, err := strconv.Atoi(fields[0])
	if err != nil {
		return timeout{}, false
	}
	var arguments [7]uint64 // Counted from 1.
	for i := 1; i < len(arguments); i++ {
		if arguments[i], err = strconv.ParseUint(fields[i], 0, 64); err != nil {
			return timeout{}, false
		}
	}
	return timeoutIn(number, arguments)
}

func timeoutIn(number int, arguments [7]uint64) (timeout, bool) {
	ms := func(value uint64) (timeout, bool) { return timeout{form: inMs, value: value}, int32(value) >= 0 }
	at := func(form timeoutForm, address uint64, clock int) (timeout, bool) {
		return timeout{form: form, value: address, clock: clock}, address != 0
	}
	switch number {
	case syscall.SYS_NANOSLEEP:
		return at(inSpec, arguments[1], 0)
	case syscall.SYS_CLOCK_NANOSLEEP:
		if arguments[2]&clockIsAbsolute != 0 {
			return at(untilSpec, arguments[3], int(arguments[1]))
		}
		return at(inSpec, arguments[3], 0)
	case syscall.SYS_POLL:
		return ms(arguments[3])
	case syscall.SYS_EPOLL_WAIT, syscall.SYS_EPOLL_PWAIT:
		return ms(arguments[4])
	case sysEpollPwait2:
		return at(inSpec, arguments[4], 0)
	case syscall.SYS_PPOLL, syscall.SYS_RT_SIGTIMEDWAIT:
		return at(inSpec, arguments[3], 0)
	case syscall.SYS_SELECT:
		return at(inVal, arguments[5], 0)
	case syscall.SYS_PSELECT6:
		return at(inSpec, arguments[5], 0)
	case syscall.SYS_SEMTIMEDOP:
		return at(inSpec, arguments[4], 0)
	case syscall.SYS_MQ_TIMEDRECEIVE, syscall.SYS_MQ_TIMEDSEND:
		return at(untilSpec, arguments[5], clockRealtime)
	case syscall.SYS_FUTEX:
		return futexTimeout(arguments)
	case sysRestart:
		return timeout{form: isUnknown}, true
	}
	return timeout{}, false
}

func futexTimeout(arguments [7]uint64) (timeout, bool) {
	t := timeout{form: untilSpec, value: arguments[4], clock: clockMonotonic, isFutex: true}
	switch arguments[2] & futexCommand {
	case futexWait:
		t.form = inSpec
	case futexLock:
		t.clock = clockRealtime
	case futexWaitUntil, futexRequeue, futexLockUntil:
		if arguments[2]&futexIsRealtime != 0 {
			t.clock = clockRealtime
		}
	default:
		return timeout{}, false
	}
	return t, t.value != 0
}

// duration returns how long the wait lasts at most. read reads the program's memory.
func (t timeout) duration(read func(address uint64, into []byte) bool, now func(clock int) (time.Duration, bool)) (time.Duration, bool) {
	switch t.form {
	case inMs:
		return time.Duration(int32(t.value)) * time.Millisecond, true
	case isUnknown:
		return math.MaxInt64, true
	}
	var words [16]byte
	if !read(t.value, words[:]) {
		return 0, false
	}
	seconds := int64(binary.LittleEndian.Uint64(words[:8]))
	part := time.Duration(binary.LittleEndian.Uint64(words[8:]))
	if t.form == inVal {
		part *= time.Microsecond
	}
	if seconds < 0 || part < 0 || part > time.Second {
		return 0, false
	}
	if seconds > math.MaxInt64/int64(time.Second)-1 {
		return math.MaxInt64, true
	}
	length := time.Duration(seconds)*time.Second + part
	if t.form == untilSpec {
		at, isKnown := now(t.clock)
		return length - at, isKnown
	}
	return length, true
}

func clockNow(clock int) (time.Duration, bool) {
	var now syscall.Timespec
	_, _, failure := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, uintptr(clock), uintptr(unsafe.Pointer(&now)), 0)
	return time.Duration(now.Nano()), failure == 0
}
