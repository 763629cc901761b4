// Waits with a timeout are told from others by what the kernel says of their system calls.

package main

import (
	"encoding/binary"
	"math"
	"testing"
	"time"
)

func TestTheTimeoutOfASystemCall(t *testing.T) {
	// Two words at 0x1000: 2, 500; the clocks stand at 1 s (monotonic) and 10 s (of the day).
	read := func(address uint64, into []byte) bool {
		binary.LittleEndian.PutUint64(into, 2)
		binary.LittleEndian.PutUint64(into[8:], 500)
		return address == 0x1000
	}
	now := func(clock int) (time.Duration, bool) {
		return map[int]time.Duration{clockMonotonic: time.Second, clockRealtime: 10 * time.Second}[clock], clock <= clockMonotonic
	}
	const none = time.Duration(math.MinInt64)
	cases := map[string]struct {
		line string
		want time.Duration
	}{
		"nanosleep":                     {"35 0x1000 0x0 0x0 0x0 0x0 0x0 0x7ffe 0x7f00", 2*time.Second + 500},
		"clock_nanosleep":               {"230 0x0 0x0 0x1000 0x0 0x0 0x0 0x7ffe 0x7f00", 2*time.Second + 500},
		"clock_nanosleep until":         {"230 0x1 0x1 0x1000 0x0 0x0 0x0 0x7ffe 0x7f00", time.Second + 500},
		"clock_nanosleep, other clock":  {"230 0x7 0x1 0x1000 0x0 0x0 0x0 0x7ffe 0x7f00", none},
		"poll":                          {"7 0x1 0x1 0x1f4 0x0 0x0 0x0 0x7ffe 0x7f00", 500 * time.Millisecond},
		"poll, for ever":                {"7 0x1 0x1 0xffffffff 0x0 0x0 0x0 0x7ffe 0x7f00", none},
		"ppoll":                         {"271 0x1 0x1 0x1000 0x0 0x8 0x0 0x7ffe 0x7f00", 2*time.Second + 500},
		"ppoll, for ever":               {"271 0x1 0x1 0x0 0x0 0x8 0x0 0x7ffe 0x7f00", none},
		"select":                        {"23 0x1 0x1 0x0 0x0 0x1000 0x0 0x7ffe 0x7f00", 2*time.Second + 500*time.Microsecond},
		"pselect":                       {"270 0x1 0x1 0x0 0x0 0x1000 0x0 0x7ffe 0x7f00", 2*time.Second + 500},
		"epoll_wait":                    {"232 0x4 0x1 0x400 0x4e20 0x0 0x0 0x7ffe 0x7f00", 20 * time.Second},
		"epoll_pwait":                   {"281 0x4 0x1 0x400 0x4e20 0x0 0x0 0x7ffe 0x7f00", 20 * time.Second},
		"epoll_pwait, for ever":         {"281 0x4 0x1 0x400 0xffffffffffffffff 0x0 0x0 0x7ffe 0x7f00", none},
		"epoll_pwait2":                  {"441 0x4 0x1 0x400 0x1000 0x0 0x0 0x7ffe 0x7f00", 2*time.Second + 500},
		"futex":                         {"202 0x1 0x80 0x0 0x1000 0x0 0x0 0x7ffe 0x7f00", 2*time.Second + 500},
		"futex, for ever":               {"202 0x1 0x80 0x0 0x0 0x0 0x0 0x7ffe 0x7f00", none},
		"futex until":                   {"202 0x1 0x89 0x0 0x1000 0x0 0x0 0x7ffe 0x7f00", time.Second + 500},
		"futex until, clock of the day": {"202 0x1 0x189 0x0 0x1000 0x0 0x0 0x7ffe 0x7f00", -8*time.Second + 500},
		"futex that wakes others":       {"202 0x1 0x81 0x0 0x1000 0x0 0x0 0x7ffe 0x7f00", none},
		"sigtimedwait":                  {"128 0x1 0x0 0x1000 0x8 0x0 0x0 0x7ffe 0x7f00", 2*time.Second + 500},
		"goes on after a signal":        {"219 0x1 0x0 0x1000 0x8 0x0 0x0 0x7ffe 0x7f00", math.MaxInt64},
		"memory that is not there":      {"35 0x2000 0x0 0x0 0x0 0x0 0x0 0x7ffe 0x7f00", none},
		"a read":                        {"0 0x1000 0x1000 0x1000 0x1000 0x1000 0x1000 0x7ffe 0x7f00", none},
		"it runs":                       {"running", none},
		"no system call":                {"-1 0x7ffe 0x7f00", none},
		"nothing":                       {"", none},
		"no numbers":                    {"35 a b c d e f g h", none},
	}
	for name, c := range cases {
		got := none
		if asked, isTimed := timeoutOf(c.line); isTimed {
			if length, isKnown := asked.duration(read, now); isKnown {
				got = length
			}
		}
		if got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestATimeThatIsNoneIsNoWait(t *testing.T) {
	for name, words := range map[string][2]int64{
		"negative": {-1, 0}, "part is negative": {1, -1}, "part is more than a second": {1, 2e9},
	} {
		read := func(_ uint64, into []byte) bool {
			binary.LittleEndian.PutUint64(into, uint64(words[0]))
			binary.LittleEndian.PutUint64(into[8:], uint64(words[1]))
			return true
		}
		if length, isKnown := (timeout{form: inSpec, value: 1}).duration(read, clockNow); isKnown {
			t.Errorf("%s: %v", name, length)
		}
	}
	far := func(_ uint64, into []byte) bool {
		binary.LittleEndian.PutUint64(into, math.MaxInt64)
		return true
	}
	if length, isKnown := (timeout{form: inSpec, value: 1}).duration(far, clockNow); !isKnown || length != math.MaxInt64 {
		t.Errorf("as long as there is: %v %v", length, isKnown)
	}
}
