// Watches of directories: what a reader who applies the events to a list of names has in the end.

package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"bhatti/agent/wire"
)

// names is a reader's list: paths and whether they are directories.
type names map[string]bool

func namesBelow(t testing.TB, top string) names {
	t.Helper()
	found := names{}
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && path != top {
			below, _ := filepath.Rel(top, path)
			found[below] = entry.IsDir()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func (n names) remove(path string) {
	for name := range n {
		if name == path || strings.HasPrefix(name, path+"/") {
			delete(n, name)
		}
	}
}

func (n names) apply(t testing.TB, event wire.FileEvent) {
	switch event.Type {
	case wire.FileCreated:
		n[event.Path] = event.IsDirectory
	case wire.FileRemoved:
		n.remove(event.Path)
	case wire.FileRenamed:
		moved := names{}
		for name, isDirectory := range n {
			if name == event.Path || strings.HasPrefix(name, event.Path+"/") {
				moved[event.To+name[len(event.Path):]] = isDirectory
			}
		}
		if len(moved) == 0 {
			t.Errorf("%+v of a path that nothing has told of", event)
		}
		n.remove(event.Path)
		n.remove(event.To)
		for name, isDirectory := range moved {
			n[name] = isDirectory
		}
	}
}

// watcher reads a watch over a connection.
type watcher struct {
	h     *host
	watch string
	after int64
}

func (h *host) watch(path string, isRecursive bool) *watcher {
	h.t.Helper()
	o := h.ask("file_watch", map[string]any{"path": path, "recursive": isRecursive})
	if o.Error != nil {
		h.t.Fatalf("%+v", o.Error)
	}
	return &watcher{h: h, watch: o.OK["watch"].(string)}
}

func (w *watcher) answerOf(o outcome) ([]wire.FileEvent, string) {
	w.h.t.Helper()
	if o.Error != nil {
		w.h.t.Fatalf("%+v", o.Error)
	}
	text, _ := json.Marshal(o.OK)
	var answer wire.FileEvents
	if err := json.Unmarshal(text, &answer); err != nil {
		w.h.t.Fatal(err)
	}
	w.after = answer.Next
	return answer.Events, answer.Ended
}

// read returns everything that has happened.
func (w *watcher) read() []wire.FileEvent {
	w.h.t.Helper()
	all := []wire.FileEvent{}
	for {
		events, _ := w.answerOf(w.h.ask("file_watch_read", map[string]any{"watch": w.watch, "after": w.after}))
		if len(events) == 0 {
			return all
		}
		all = append(all, events...)
	}
}

func text(events []wire.FileEvent) []string {
	lines := []string{}
	for _, e := range events {
		line := e.Type + " " + e.Path
		if e.To != "" {
			line += " " + e.To
		}
		if e.IsDirectory {
			line += "/"
		}
		lines = append(lines, line)
	}
	return lines
}

func (w *watcher) expect(want ...string) {
	w.h.t.Helper()
	if got := text(w.read()); !reflect.DeepEqual(got, want) && len(got)+len(want) > 0 {
		w.h.t.Errorf("%q, not %q", got, want)
	}
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestAWatchTellsOfEveryKindOfChange(t *testing.T) {
	h := personalised(t)
	top := t.TempDir()
	at := func(name string) string { return filepath.Join(top, name) }
	must(t, os.MkdirAll(at("old/deep"), 0o755), os.WriteFile(at("old/deep/file"), nil, 0o644))
	w := h.watch(top, true)
	w.expect()
	must(t, os.WriteFile(at("a"), []byte("x"), 0o644))
	w.expect("create a", "write a")
	must(t, os.Chmod(at("a"), 0o600))
	w.expect("chmod a")
	must(t, os.Rename(at("a"), at("old/deep/b")))
	w.expect("rename a old/deep/b")
	must(t, os.Rename(at("old"), at("new")))
	must(t, os.WriteFile(at("new/deep/b"), []byte("y"), 0o644))
	w.expect("rename old new/", "write new/deep/b")
	must(t, os.Remove(at("new/deep/b")), os.Remove(at("new/deep/file")), os.Remove(at("new/deep")))
	w.expect("remove new/deep/b", "remove new/deep/file", "remove new/deep/")
	must(t, os.MkdirAll(at("x/y/z"), 0o755), os.WriteFile(at("x/y/z/f"), nil, 0o644), os.Symlink("/etc", at("x/link")))
	events := names{}
	for _, event := range w.read() {
		events.apply(t, event)
	}
	if want := (names{"x": true, "x/y": true, "x/y/z": true, "x/y/z/f": false, "x/link": false}); !reflect.DeepEqual(events, want) {
		t.Errorf("%v", events)
	}
	must(t, os.WriteFile(at("x/y/z/f"), []byte("1"), 0o644))
	w.expect("write x/y/z/f")
}

func TestAWatchThatIsNotRecursiveTellsOfItsDirectoryOnly(t *testing.T) {
	h := personalised(t)
	top := t.TempDir()
	w := h.watch(top, false)
	must(t, os.MkdirAll(top+"/a/b", 0o755), os.WriteFile(top+"/a/b/c", nil, 0o644), os.Rename(top+"/a", top+"/d"))
	w.expect("create a/", "rename a d/")
	outside := t.TempDir()
	must(t, os.Rename(top+"/d", outside+"/d"), os.Rename(outside+"/d", top+"/e"))
	w.expect("remove d/", "create e/")
}

func TestWhatTheHostWritesIsToldUnderItsNameOnly(t *testing.T) {
	h := personalised(t)
	top := t.TempDir()
	w := h.watch(top, true)
	for i := 0; i < 2; i++ {
		h.put("file_write", map[string]any{"path": top + "/f"}, []byte("x"))
		w.expect("create f")
	}
}

func TestEventsAreKeptUntilTheReaderHasThem(t *testing.T) {
	h := personalised(t)
	top := t.TempDir()
	w := h.watch(top, true)
	must(t, os.WriteFile(top+"/a", nil, 0o644))
	w.expect("create a")
	must(t, os.WriteFile(top+"/b", nil, 0o644))
	before := w.after
	w.expect("create b")
	w.after = before
	// Confirmed by the answer that had nothing more.
	w.after = 1000
	must(t, os.WriteFile(top+"/c", nil, 0o644))
	w.expect("lost .", "create c")
	if w.after != 1002 {
		t.Errorf("the numbers go on at %d", w.after)
	}
	if o := h.ask("file_watch_read", map[string]any{"watch": w.watch, "after": -1}); o.Error == nil || o.Error.Code != wire.Invalid {
		t.Errorf("%+v", o)
	}
}

func TestAnAnswerThatWasLostIsGivenAgain(t *testing.T) {
	h := personalised(t)
	top := t.TempDir()
	w := h.watch(top, true)
	must(t, os.WriteFile(top+"/a", nil, 0o644))
	ask := func() []string {
		events, _ := w.answerOf(h.ask("file_watch_read", map[string]any{"watch": w.watch, "after": 0}))
		return text(events)
	}
	if one, other := ask(), ask(); !reflect.DeepEqual(one, other) || len(one) != 1 {
		t.Errorf("%q, then %q", one, other)
	}
}

// A reader whose connection broke behind the confirmation of what it had not seen asks like another one.
func TestAReaderGetsTheEventsThatAnotherOneHasConfirmed(t *testing.T) {
	h := personalised(t)
	top := t.TempDir()
	first := h.watch(top, false)
	second := &watcher{h: h, watch: first.watch}
	change := func(count int) (want []string) {
		for i := 0; i < count; i++ {
			must(t, syscall.Mkdir(top+"/"+strconv.Itoa(i), 0o755), syscall.Rmdir(top+"/"+strconv.Itoa(i)))
			want = append(want, fmt.Sprintf("create %d/", i), fmt.Sprintf("remove %d/", i))
		}
		return want
	}
	want := change(watchConfirmedMax / 2)
	first.expect(want...)
	first.expect()
	second.expect(want...)
	first.after -= 2
	first.expect(want[len(want)-2:]...)

	// Beyond the limit it is told that events are missing, and gets those that are still there.
	change(watchConfirmedMax)
	if events := second.read(); len(events) != 2*watchConfirmedMax {
		t.Errorf("%d events", len(events))
	}
	second.expect()
	events := first.read()
	if events[0].Type != wire.EventsLost || len(events) != 1+watchConfirmedMax {
		t.Errorf("%d events, %+v", len(events), events[0])
	}
	if first.after != second.after {
		t.Errorf("the readers are at %d and %d", first.after, second.after)
	}
}

func TestAReaderThatWaitsIsAnsweredByTheFirstChange(t *testing.T) {
	h := personalised(t)
	top := t.TempDir()
	w := h.watch(top, true)
	waiting := func() uint32 {
		stream := h.start("file_watch_read", map[string]any{"watch": w.watch, "after": w.after, "wait": true})
		found := h.agent.watches.list()[0]
		await(t, "it waits", func() bool {
			found.mu.Lock()
			defer found.mu.Unlock()
			return found.reader != nil
		})
		return stream
	}
	stream := waiting()
	must(t, os.WriteFile(top+"/a", nil, 0o644))
	if events, _ := w.answerOf(h.end(stream)); len(events) == 0 || events[0].Path != "a" {
		t.Errorf("%+v", events)
	}
	stream = waiting()
	h.send(wire.Close, stream, nil)
	if events, _ := w.answerOf(h.end(stream)); len(events) > 0 {
		t.Errorf("closed: %+v", events)
	}
	stream = waiting()
	if o := h.ask("quiesce", nil); o.Error != nil {
		t.Errorf("%+v", o.Error)
	}
	if events, _ := w.answerOf(h.end(stream)); len(events) > 0 {
		t.Errorf("quiesced: %+v", events)
	}
	must(t, os.WriteFile(top+"/b", nil, 0o644))
	h.greet()
	h.personalise()
	w.expect("create b")
	stream = waiting()
	must(t, os.Remove(top+"/a"), os.Remove(top+"/b"), os.Remove(top))
	ended := ""
	for ended == "" {
		_, ended = w.answerOf(h.end(stream))
		stream = h.start("file_watch_read", map[string]any{"watch": w.watch, "after": w.after, "wait": true})
	}
	if o := h.ask("file_watch_remove", map[string]any{"watch": w.watch}); o.Error != nil {
		t.Errorf("%+v", o.Error)
	}
	if o := h.ask("file_watch_read", map[string]any{"watch": w.watch}); o.Error == nil || o.Error.Code != wire.NotFound {
		t.Errorf("%+v", o)
	}
}

func TestAReaderThatIsAwayCostsBoundedMemoryAndIsTold(t *testing.T) {
	h := personalised(t)
	top := t.TempDir()
	w := h.watch(top, true)
	for i := 0; i < watchEventsMax+5000; i++ {
		if i%2 == 0 {
			must(t, syscall.Mkdir(top+"/x", 0o755))
		} else {
			must(t, syscall.Rmdir(top+"/x"))
		}
		if i%1000 == 0 {
			_ = h.ask("file_watch_read", map[string]any{"watch": w.watch, "after": 0})
		}
	}
	found := h.agent.watches.list()[0]
	found.mu.Lock()
	kept := len(found.queue.events)
	found.mu.Unlock()
	if kept > watchEventsMax+watchConfirmedMax {
		t.Errorf("%d events are kept", kept)
	}
	events := w.read()
	if last := events[len(events)-1]; last.Type != wire.EventsLost {
		t.Errorf("%+v", last)
	}
	must(t, os.WriteFile(top+"/y", nil, 0o644))
	w.expect("create y")
}

func TestWhenTheKernelDropsEventsTheTreeIsReadAgain(t *testing.T) {
	top := t.TempDir()
	root, err := syscall.Open(top, flagPath|syscall.O_DIRECTORY, 0)
	must(t, err)
	defer syscall.Close(root)
	inotify, err := syscall.InotifyInit1(syscall.IN_NONBLOCK)
	must(t, err)
	defer syscall.Close(inotify)
	events := []wire.FileEvent{}
	tree := watchTree{inotify: inotify, root: root, isRecursive: true, emit: func(e wire.FileEvent) { events = append(events, e) }}
	must(t, tree.fill())
	text, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	must(t, err)
	max, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	must(t, os.MkdirAll(top+"/early/below", 0o755))
	for i := 0; i <= max/2; i++ {
		must(t, syscall.Mkdir(top+"/x", 0o755), syscall.Rmdir(top+"/x"))
	}
	must(t, os.MkdirAll(top+"/late/below", 0o755), tree.update())
	if last := events[len(events)-1]; last.Type != wire.EventsLost || last.Reason != reasonKernel {
		t.Fatalf("%+v", last)
	}
	events = nil
	must(t, os.WriteFile(top+"/late/below/f", nil, 0o644), os.WriteFile(top+"/early/below/f", nil, 0o644), tree.update())
	if len(events) != 2 || events[0].Path != "late/below/f" || events[1].Path != "early/below/f" {
		t.Errorf("%+v", events)
	}
}

func TestNamesThatWereExchangedAreBothThere(t *testing.T) {
	const exchange, renameat2 = 2, 316
	h := personalised(t)
	top := t.TempDir()
	must(t, os.MkdirAll(top+"/a/in-a", 0o755), os.MkdirAll(top+"/b/in-b", 0o755), os.WriteFile(top+"/f", nil, 0o644))
	w := h.watch(top, true)
	known := namesBelow(t, top)
	swap := func(one, other string) {
		from, _ := syscall.BytePtrFromString(top + "/" + one)
		to, _ := syscall.BytePtrFromString(top + "/" + other)
		folder := atWorkingFolder
		_, _, errno := syscall.Syscall6(renameat2, uintptr(folder), uintptr(unsafe.Pointer(from)),
			uintptr(folder), uintptr(unsafe.Pointer(to)), exchange, 0)
		if errno != 0 {
			t.Skip(errno)
		}
	}
	swap("a", "b")
	must(t, os.WriteFile(top+"/a/in-b/x", nil, 0o644))
	swap("b", "f")
	for _, event := range w.read() {
		known.apply(t, event)
	}
	if want := namesBelow(t, top); !reflect.DeepEqual(known, want) {
		t.Errorf("%v, not %v", known, want)
	}
}

// storm changes names at random, below top and between it and a place outside.
func storm(random *rand.Rand, top, outside string, steps int) {
	letters := "abcd"
	place := func() string {
		base := top
		if random.Intn(12) == 0 {
			base = outside
		}
		for depth := random.Intn(4); depth > 0; depth-- {
			base += "/" + letters[random.Intn(len(letters)):][:1]
		}
		return base + "/" + letters[random.Intn(len(letters)):][:1]
	}
	for i := 0; i < steps; i++ {
		switch path := place(); random.Intn(10) {
		case 0, 1, 2:
			_ = os.MkdirAll(path, 0o755)
		case 3, 4:
			_ = os.WriteFile(path, []byte("x"), 0o644)
		case 5:
			_ = os.RemoveAll(path)
		case 6:
			_ = syscall.Unlink(path)
		case 7, 8:
			_ = syscall.Rename(path, place())
		case 9:
			_ = os.Symlink("a", path)
		}
	}
}

// TestAReaderHasTheNamesThatAreThereAfterAnyChanges takes WATCH_SEEDS and SEED.
func TestAReaderHasTheNamesThatAreThereAfterAnyChanges(t *testing.T) {
	seeds, first := 6, int64(1)
	if text := os.Getenv("WATCH_SEEDS"); text != "" {
		seeds, _ = strconv.Atoi(text)
	}
	if text := os.Getenv("SEED"); text != "" {
		first, _ = strconv.ParseInt(text, 10, 64)
		seeds = 1
	}
	h := personalised(t)
	losses := 0
	for seed := first; seed < first+int64(seeds); seed++ {
		top, outside := t.TempDir(), t.TempDir()
		storm(rand.New(rand.NewSource(-seed)), top, outside, 30)
		w := h.watch(top, true)
		known := namesBelow(t, top)
		var log []wire.FileEvent
		var writers sync.WaitGroup
		for writer := int64(0); writer < 1+seed%3; writer++ {
			writers.Add(1)
			go func(random *rand.Rand) {
				defer writers.Done()
				storm(random, top, outside, 300)
			}(rand.New(rand.NewSource(seed*10 + writer)))
		}
		over := make(chan struct{})
		go func() { writers.Wait(); close(over) }()
		for isOver := false; !isOver; {
			select {
			case <-over:
				isOver = true
			case <-time.After(time.Duration(seed%7) * time.Millisecond):
			}
			for _, event := range w.read() {
				log = append(log, event)
				if event.Type == wire.EventsLost {
					losses++
				}
				known.apply(t, event)
			}
		}
		lost := 0
		for _, event := range log {
			if event.Type == wire.EventsLost {
				lost++
			}
		}
		if want := namesBelow(t, top); !reflect.DeepEqual(known, want) && lost == 0 {
			t.Errorf("seed %d: has %v\nwants %v", seed, sorted(known), sorted(want))
			if len(log) < 2000 {
				t.Log(strings.Join(text(log), "\n"))
			}
			return
		}
		// Every directory is watched under its own path.
		must(t, os.WriteFile(top+"/end", nil, 0o644))
		want := []string{"create end"}
		for _, path := range sorted(namesBelow(t, top)) {
			if namesBelow(t, top)[path] {
				must(t, os.WriteFile(filepath.Join(top, path, "end"), nil, 0o644))
				want = append(want, "create "+path+"/end")
			}
		}
		if got := text(w.read()); !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d: %q, not %q", seed, got, want)
		}
		h.ask("file_watch_remove", map[string]any{"watch": w.watch})
	}
	if losses > seeds/5 {
		t.Errorf("events were lost %d times", losses)
	}
}

func sorted(n names) []string {
	list := []string{}
	for name := range n {
		list = append(list, name)
	}
	sort.Strings(list)
	return list
}

// TestAThousandFilesMadeAtOnceAreAllTold is the race of a new directory: its files are made before it is watched.
func TestAThousandFilesMadeAtOnceAreAllTold(t *testing.T) {
	h := personalised(t)
	top := t.TempDir()
	w := h.watch(top, true)
	script := "for i in 1 2 3 4 5; do mkdir -p d$i/e/f && touch d$i/1 d$i/e/2 d$i/e/f/3 && mv d$i m$i; done"
	command := exec.Command("sh", "-c", script)
	command.Dir = top
	must(t, command.Run())
	counts := map[string]int{}
	known := names{}
	for _, event := range w.read() {
		known.apply(t, event)
		counts[event.Type+" "+event.Path]++
	}
	if want := namesBelow(t, top); !reflect.DeepEqual(known, want) {
		t.Errorf("%v, not %v", known, want)
	}
	for what, count := range counts {
		if strings.HasPrefix(what, "create") && count > 1 {
			t.Errorf("%s is told %d times", what, count)
		}
	}
}

func TestWatchesAreBoundedAndOldOnesGiveWay(t *testing.T) {
	h := personalised(t)
	top := t.TempDir()
	first := h.watch(top, true)
	for i := 1; i < watchesMax; i++ {
		h.watch(top, false)
	}
	refuse := func() outcome { return h.ask("file_watch", map[string]any{"path": top}) }
	if o := refuse(); o.Error == nil || o.Error.Code != wire.LimitExceeded {
		t.Fatalf("%+v", o)
	}
	h.agent.watches.mu.Lock()
	old := h.agent.watches.byID[first.watch]
	h.agent.watches.mu.Unlock()
	old.mu.Lock()
	old.readAt = time.Now().Add(-time.Minute)
	old.mu.Unlock()
	if o := refuse(); o.Error != nil {
		t.Errorf("%+v", o.Error)
	}
	if o := h.ask("file_watch_read", map[string]any{"watch": first.watch}); o.Error == nil || o.Error.Code != wire.NotFound {
		t.Errorf("%+v", o)
	}
	for _, path := range []string{top + "/none", "/etc/passwd"} {
		if o := h.ask("file_watch", map[string]any{"path": path}); o.Error == nil {
			t.Errorf("%s: %s", path, fmt.Sprint(o.OK))
		}
	}
	for _, w := range h.agent.watches.list() {
		h.agent.watches.remove(w)
	}
}
