// The kernel's list of timers is read, and its timers are brought together with the waits of threads.

package main

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

// timerList is how the kernel writes it; the middle of each line is what a test fills in.
func timerList(realtime string, monotonic string) string {
	return `Timer List Version: v0.9
HRTIMER_MAX_CLOCK_BASES: 8
now at 6651265294 nsecs

cpu: 0
 clock 0:
  .base:       0000000055aa
  .index:      0
  .resolution: 1 nsecs
  .get_time:   ktime_get
  .offset:     0 nsecs
active timers:
 #0: <000000009bb8ed43>, tick_sched_timer, S:01
 # expires at 6660000000-6660000000 nsecs [in 8734706 to 8734706 nsecs]
 #1: <000000008b897699>, watchdog_timer_fn, S:01
 # expires at 8764926918-8764926918 nsecs [in 2113661624 to 2113661624 nsecs]
` + monotonic + ` clock 1:
  .base:       0000000055ab
  .index:      1
  .resolution: 1 nsecs
  .get_time:   ktime_get_real
  .offset:     1796007000000000000 nsecs
active timers:
` + realtime + `  .expires_next   : 6660000000 nsecs
`
}

func timer(function string, in int64) string {
	const slack = 50000
	return fmt.Sprintf(" #2: <0000000040ab3397>, %s, S:01\n # expires at %d-%d nsecs [in %d to %d nsecs]\n",
		function, 6651265294+in, 6651265294+in+slack, in, in+slack)
}

func TestTheTimersOfProgramsAreReadFromTheKernelsList(t *testing.T) {
	second := int64(time.Second)
	cases := map[string]struct {
		list string
		want timers
	}{
		"only the kernel's":       {list: timerList("", "")},
		"a wait":                  {timerList("", timer("hrtimer_wakeup", 20*second)), timers{waits: []time.Duration{20 * time.Second}}},
		"a timerfd":               {timerList("", timer("timerfd_tmrproc", 3*second)), timers{hasTimerfd: true}},
		"timer_create":            {timerList("", timer("posix_timer_fn", 4*second)), timers{signals: []time.Duration{4 * time.Second}}},
		"setitimer":               {timerList("", timer("it_real_fn", 5*second)), timers{signals: []time.Duration{5 * time.Second}}},
		"on the clock of the day": {timerList(timer("hrtimer_wakeup", 1796007000000000000+7*second), ""), timers{waits: []time.Duration{7 * time.Second}}},
		"due already":             {timerList("", timer("hrtimer_wakeup", -500)), timers{waits: []time.Duration{0}}},
		"cut off":                 {list: strings.SplitAfter(timerList("", timer("hrtimer_wakeup", 9*second)), "hrtimer_wakeup")[0]},
		"nothing":                 {list: ""},
		"something else":          {list: strings.Repeat("# < expires [in x\n", 10)},
	}
	for name, c := range cases {
		if got := parseTimerList(c.list); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestAWaitTakesTheLongestTimerThatItCanHaveSet(t *testing.T) {
	const s = time.Second
	cases := map[string]struct {
		waits []wait
		left  []time.Duration
		want  []time.Duration
	}{
		"nobody waits":                               {nil, []time.Duration{5 * s}, nil},
		"one that counts":                            {[]wait{{20 * s, true}}, []time.Duration{19 * s}, []time.Duration{19 * s}},
		"one that does not":                          {[]wait{{20 * s, false}}, []time.Duration{19 * s}, nil},
		"a server polls, a job is far away":          {[]wait{{s / 2, false}, {3600 * s, true}}, []time.Duration{s / 4, 3000 * s}, []time.Duration{3000 * s}},
		"a job, a server waits for longer":           {[]wait{{20 * s, true}, {60 * s, false}}, []time.Duration{7 * s, 31 * s}, []time.Duration{7 * s}},
		"a job waits for longer and is due first":    {[]wait{{300 * s, true}, {60 * s, false}}, []time.Duration{20 * s, 50 * s}, []time.Duration{50 * s}},
		"its timer has come meanwhile":               {[]wait{{20 * s, true}}, nil, nil},
		"a timer is left over":                       {[]wait{{20 * s, true}}, []time.Duration{90 * s, 3 * s}, []time.Duration{3 * s}},
		"a call that was interrupted and goes on":    {[]wait{{math.MaxInt64, true}, {s, false}}, []time.Duration{s, 8 * s}, []time.Duration{8 * s}},
		"the list was read a moment before or later": {[]wait{{20 * s, true}}, []time.Duration{20*s + s/20}, []time.Duration{20*s + s/20}},
	}
	for name, c := range cases {
		if got := dueWaits(c.waits, c.left); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v", name, got)
		}
	}
}
