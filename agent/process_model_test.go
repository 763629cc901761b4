// The promises of processes under random operations: connections that are lost, drivers that come and go and take
// over, watchers that read slowly. Every byte of output arrives once and in order from the offset that was asked for,
// and every byte of input reaches the program once.

package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"bhatti/agent/wire"
)

// seedsVariable is the number of random runs; more than the default are for a long test.
const seedsVariable = "LOHAR_MODEL_SEEDS"

func modelSeeds(t *testing.T) int64 {
	text := os.Getenv(seedsVariable)
	if text == "" {
		return 3
	}
	count, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return count
}

// modelClient is what the test knows of one client: what comes next of each output, and how much it may send.
type modelClient struct {
	isDriver  bool
	hasBegun  bool
	at        [2]int64
	owed      int // credit that is held back
	allowance int
}

// model is one process and its clients.
type model struct {
	h         *host
	random    *rand.Rand
	request   map[string]any
	outputs   [2][]byte // what the program writes
	input     []byte
	clients   map[uint32]*modelClient
	isStarted bool
	driver    uint32   // 0: none
	at        [2]int64 // what the drivers have received
	typed     int64    // what the program has taken, and the driver has sent
	ended     *wire.Ended
	t         *testing.T
}

func (m *model) lose() {
	m.h = m.h.again()
	m.clients, m.driver = map[uint32]*modelClient{}, 0
}

// drive attaches a driver behind the last byte that a driver has received, by the key or by the name.
func (m *model) drive() {
	from := map[string]int64{"stdout": m.at[0], "stderr": m.at[1]}
	var stream uint32
	if !m.isStarted || m.random.Intn(2) == 0 {
		m.isStarted = true
		m.request["from"] = from
		stream = m.h.start("process_start", m.request)
	} else {
		stream = m.h.attach("job", map[string]any{"from": from})
	}
	if m.driver != 0 {
		delete(m.clients, m.driver) // Taken over: nothing of it counts any more.
	}
	m.driver = stream
	m.clients[stream] = &modelClient{isDriver: true, allowance: wire.WindowBytes}
}

func (m *model) watch() {
	more := map[string]any{"mode": "watch"}
	if m.random.Intn(2) == 0 {
		more["from"] = map[string]int64{"stdout": m.random.Int63n(m.at[0] + 1), "stderr": m.random.Int63n(m.at[1] + 1)}
	}
	m.clients[m.h.attach("job", more)] = &modelClient{}
}

func (m *model) leave() {
	for stream := range m.clients {
		m.h.send(wire.Close, stream, nil)
		delete(m.clients, stream)
		if stream == m.driver {
			m.driver = 0
		}
		return
	}
}

// read takes what arrives within a moment.
func (m *model) read(count int) {
	for ; count > 0; count-- {
		_ = m.h.conn.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
		frame, err := m.h.reader.Frame()
		if os.IsTimeout(err) {
			return
		}
		if err != nil {
			m.t.Fatal(err)
		}
		if c := m.clients[frame.Stream]; c != nil {
			m.take(frame, c)
		}
	}
}

func (m *model) take(frame wire.Frame, c *modelClient) {
	switch frame.Type {
	case wire.Window:
		c.allowance += int(binary.BigEndian.Uint32(frame.Payload))
	case wire.Message:
		m.hear(frame.Payload, c)
	case wire.Data:
		m.check(frame.Payload[0]-wire.Stdout, frame.Payload[1:], c)
		if c.owed += len(frame.Payload) - 1; m.random.Intn(4) > 0 {
			m.h.window(frame.Stream, c.owed)
			c.owed = 0
		}
	case wire.Close:
		var answer struct {
			OK    wire.ProcessState
			Error *wire.Error
		}
		if err := json.Unmarshal(frame.Payload, &answer); err != nil || answer.Error != nil || answer.OK.State != wire.StateEnded {
			m.t.Fatalf("a client was sent away: %s", frame.Payload)
		}
		for i := range c.at {
			if c.at[i] != int64(len(m.outputs[i])) {
				m.t.Fatalf("the end came at %v", c.at)
			}
		}
		delete(m.clients, frame.Stream)
		if c.isDriver {
			m.ended = answer.OK.Ended
		}
	}
}

func (m *model) hear(payload []byte, c *modelClient) {
	var message struct {
		wire.ProcessMessage
		Skipped *wire.Offsets
	}
	if err := json.Unmarshal(payload, &message); err != nil {
		m.t.Fatal(err)
	}
	if message.Skipped != nil {
		c.at[0] += message.Skipped.Stdout
		c.at[1] += message.Skipped.Stderr
		if c.isDriver {
			m.t.Fatalf("the driver has missed %+v", *message.Skipped)
		}
		return
	}
	c.hasBegun, c.at = true, [2]int64{message.From.Stdout, message.From.Stderr}
	if c.isDriver {
		if c.at != m.at {
			m.t.Fatalf("the driver has %v and gets what begins at %v", m.at, c.at)
		}
		m.typed = message.Input
	}
}

func (m *model) check(output byte, got []byte, c *modelClient) {
	at := c.at[output]
	if want := m.outputs[output]; int(at)+len(got) > len(want) || !bytes.Equal(want[at:int(at)+len(got)], got) {
		m.t.Fatalf("output %d differs behind byte %d (driver: %v): %q, not %q", output, at, c.isDriver, got[:minimum(len(got), 40)],
			want[minimum(int(at), len(want)):minimum(int(at)+40, len(want))])
	}
	c.at[output] += int64(len(got))
	if c.isDriver {
		m.at = c.at
	}
}

// write sends some of the input that the program does not have yet.
func (m *model) write() {
	c := m.clients[m.driver]
	if c == nil || !c.hasBegun || m.typed >= int64(len(m.input)) {
		return
	}
	end := m.typed + int64(minimum(1+m.random.Intn(wire.DataBytesMax), c.allowance))
	if end > int64(len(m.input)) {
		end = int64(len(m.input))
	}
	if end == m.typed {
		return
	}
	m.h.data(m.driver, m.input[m.typed:end])
	c.allowance -= int(end - m.typed)
	if m.typed = end; end == int64(len(m.input)) {
		m.h.send(wire.End, m.driver, []byte{wire.Stdin})
	}
}

func (m *model) step() {
	switch n := m.random.Intn(100); {
	case n == 0:
		m.lose()
	case n < 4:
		m.drive()
	case n < 8 && len(m.clients) < 6:
		m.watch()
	case n < 11:
		m.leave()
	case n < 50:
		m.write()
	default:
		m.read(1 + m.random.Intn(30))
	}
	if m.driver == 0 && m.random.Intn(5) == 0 {
		m.drive()
	}
	if c := m.clients[m.driver]; c != nil && c.owed > 0 && m.random.Intn(10) == 0 {
		m.h.window(m.driver, c.owed)
		c.owed = 0
	}
}

func TestEveryByteArrivesOnceAndInOrder(t *testing.T) {
	count := func(to int) []byte {
		var text bytes.Buffer
		for i := 1; i <= to; i++ {
			fmt.Fprintln(&text, i)
		}
		return text.Bytes()
	}
	input := count(150000)
	for seed := int64(1); seed <= modelSeeds(t); seed++ {
		for _, c := range []struct {
			script  string
			input   []byte
			outputs [2][]byte
		}{
			{"seq 1 200000 >&2 & seq 1 250000; wait; exit 5", nil, [2][]byte{count(250000), count(200000)}},
			{"cat; exit 5", input, [2][]byte{input, nil}},
		} {
			h := personalised(t)
			m := &model{
				h: h, random: rand.New(rand.NewSource(seed)), outputs: c.outputs, input: c.input, t: t,
				clients: map[uint32]*modelClient{},
				request: map[string]any{
					"argv": []string{"sh", "-c", c.script}, "user": ownName, "cwd": "/", "stdin": true, "name": "job", "key": "k",
					"grace_ms": 60000, "retain_ms": 60000,
				},
			}
			m.drive()
			for end := time.Now().Add(deadline); m.ended == nil; m.step() {
				if time.Now().After(end) {
					t.Fatalf("seed %d, %s: %v of %d and %d bytes came", seed, c.script, m.at, len(c.outputs[0]), len(c.outputs[1]))
				}
			}
			if m.ended.ExitCode != 5 || m.ended.Reason != wire.EndExited {
				t.Errorf("seed %d: %+v", seed, m.ended)
			}
			h = m.h.again()
			if o := h.ask("process_forget", map[string]any{"process": "job"}); o.OK == nil {
				t.Errorf("seed %d: %+v", seed, o)
			}
			await(t, "the memory for output is given back", func() bool { return h.agent.processes.budget.left() == outputBudget() })
		}
	}
}

func TestMuchOutputOfADetachedProcessTakesBoundedMemory(t *testing.T) {
	h := personalised(t)
	heap := func() uint64 {
		var about runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&about)
		return about.HeapAlloc
	}
	before := heap()
	const count = 200 << 20
	id := h.keep(fmt.Sprintf("head -c %d /dev/zero; echo end", count), nil)
	h.wait(id)
	if used := int64(heap()) - int64(before); used > 2*ringBytesDefault {
		t.Errorf("the heap grew by %d bytes", used)
	}
	stream := h.attach(id, map[string]any{"from": map[string]int{"stdout": count - 10, "stderr": 0}})
	h.first(stream)
	if o := h.end(stream); string(o.output) != strings.Repeat("\x00", 10)+"end\n" {
		t.Errorf("%q", o.output)
	}
	stream = h.attach(id, map[string]any{"from": map[string]int{"stdout": 0, "stderr": 0}})
	if first := h.first(stream); first.From.Stdout != count+4-ringBytesDefault {
		t.Errorf("%+v", first.From)
	}
}

func TestALateClientSeesTheSameScreen(t *testing.T) {
	h := personalised(t)
	driver := h.startProcess(`i=0; while [ $i -lt 4000 ]; do i=$((i+1)); printf '\033[1mline\033[0m %d\n' $i; done; read x`, map[string]any{
		"tty": map[string]int{"rows": 20, "cols": 70}, "stdin": true, "on_disconnect": "keep", "ring_bytes": ringBytesLeast,
	})
	h.first(driver)
	all := h.see(driver, " 4000\r\n")
	var late []uint32
	for i := 0; i < 2; i++ {
		stream := h.attach("s1", map[string]any{"mode": "watch"})
		h.first(stream)
		late = append(late, stream)
	}
	h.data(driver, []byte("\r"))
	all += string(h.end(driver).output)
	for _, stream := range late {
		seen := string(h.end(stream).output)
		if !strings.HasSuffix(all, seen) || len(seen) < ringBytesLeast-replayScanBytes || seen[0] != '\x1b' && seen[:4] != "line" {
			t.Errorf("%d bytes that begin with %q", len(seen), seen[:20])
		}
	}
}

func TestTheOutputOfWhatEndedFirstIsDroppedWhenMemoryIsShort(t *testing.T) {
	h := personalised(t)
	defer h.killAll()
	h.agent.processes.budget.max = 3 * 131072
	ids := []string{}
	for i := 0; i < 4; i++ {
		id := h.keep("head -c 131072 /dev/zero; exit 4", nil)
		h.wait(id)
		ids = append(ids, id)
	}
	first := func(id string) float64 {
		return h.process(id)["output"].(map[string]any)["stdout"].(map[string]any)["first"].(float64)
	}
	if p := h.process(ids[0]); first(ids[0]) != 131072 || endOf(p["ended"]) != "4 <nil> exited <nil>" || first(ids[3]) > 65536 {
		t.Errorf("%+v", p)
	}
	stream := h.attach(ids[0], nil)
	if o := h.end(stream); len(o.output) != 0 || o.OK["state"] != "ended" {
		t.Errorf("%+v", o)
	}
	// A driver that reads slowly loses nothing.
	h.agent.processes.budget.max = 1 << 20
	read := h.keep("head -c 800000 /dev/zero", nil)
	h.wait(read)
	stream = h.attach(read, nil)
	begins := h.first(stream).From.Stdout
	for i := 0; i < 4; i++ {
		h.wait(h.keep("head -c 131072 /dev/zero", nil))
	}
	if from := first(read); from != float64(begins) || begins > 262144 {
		t.Errorf("the output that its driver reads begins at %v, and began at %v", from, begins)
	}
	// A running process has its least share also when there is none left.
	h.agent.processes.budget.max = 1
	running := h.keep("head -c 1000000 /dev/zero; exec sleep 100", nil)
	await(t, "all is written", func() bool {
		out := h.process(running)["output"].(map[string]any)["stdout"].(map[string]any)
		kept := out["total"].(float64) - out["first"].(float64)
		return out["total"] == 1000000.0 && kept >= ringBytesLeast && kept <= ringBytesGranted
	})
}

// A ring holds the last bytes whatever the pieces, copied or adopted, and its memory stays in proportion.
func TestTheRingTakesAnyPieces(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	for _, max := range []int{ringBytesLeast, 200000, ringBytesDefault} {
		r, all := testRing(max), []byte{}
		for i := 0; i < 600; i++ {
			buffer := new(chunk)
			count := 1 + random.Intn(chunkBytes)
			if random.Intn(2) == 0 {
				count = 1 + random.Intn(300)
			}
			_, _ = random.Read(buffer[dataRoom : dataRoom+count])
			all = append(all, buffer[dataRoom:dataRoom+count]...)
			r.adopt(buffer, count)
			kept := make([]byte, r.total-r.first)
			if r.copyFrom(r.first, kept); !bytes.HasSuffix(all, kept) || len(kept) != minimum(max, len(all)) {
				t.Fatalf("%d: %d bytes that differ", i, len(kept))
			}
			at, one := r.first+random.Int63n(r.total-r.first), make([]byte, 1)
			if r.copyFrom(at, one); one[0] != all[at] {
				t.Fatalf("%d: the byte at %d differs", i, at)
			}
			if r.size > 2*(max+ringBytesStep) || r.budget.used != int64(r.size) {
				t.Fatalf("%d: %d bytes of memory for %d", i, r.size, max)
			}
		}
		if r.drop(); r.budget.used != 0 || r.first != r.total {
			t.Errorf("%+v", r)
		}
	}
}

func TestAForgottenProcessHasNoTimerLeft(t *testing.T) {
	h := personalised(t)
	id := h.keep("head -c 100000 /dev/zero", map[string]any{"retain_ms": 1 << 40})
	h.wait(id)
	p, _ := h.agent.processes.find(id)
	await(t, "it is retained", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.retaining != nil })
	if o := h.ask("process_forget", map[string]any{"process": id}); o.OK == nil {
		t.Fatalf("%+v", o)
	}
	if p.retaining.Stop() {
		t.Error("its timer still ran")
	}
}

func TestAnEndedProcessWithLittleOutputIsForgottenWithoutATimer(t *testing.T) {
	h := personalised(t)
	id := h.keep("echo little", map[string]any{"retain_ms": 300})
	h.wait(id)
	p, _ := h.agent.processes.find(id)
	isForgotten := func() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.isForgotten }
	await(t, "its time is over", func() bool { return p.endedAt.Add(400 * time.Millisecond).Before(time.Now()) })
	if p.retaining != nil || isForgotten() {
		t.Errorf("timer %v, forgotten %v", p.retaining, isForgotten())
	}
	h.wait(h.keep("true", map[string]any{"retain_ms": 1 << 40}))
	if !isForgotten() {
		t.Error("the next start forgets it")
	}
}

func TestEndedProcessesAreBounded(t *testing.T) {
	a := testAgent()
	for i := 0; i < processesEndedMax+5; i++ {
		p := &process{agent: a, finished: make(chan struct{}), key: fmt.Sprint(i)}
		if err := a.processes.reserve(p, false); err != nil {
			t.Fatal(err)
		}
		a.processes.add(p)
		close(p.finished)
		a.processes.ended(p)
	}
	list := a.processes.list()
	if len(list) != processesEndedMax || list[0].id != "p6" || !a.processes.forgotten.has("4") || list[0].key != "5" {
		t.Errorf("%d processes, the first is %s", len(list), list[0].id)
	}
}
