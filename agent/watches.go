// Watches of directories: each lives on without a client and keeps its events until its reader has confirmed them.
//
// A reader asks for the events after a number, and may wait for them. It is answered with everything that happened
// before it asked. A connection that is lost, a paused machine or a restored one lose no event: the reader asks again.

package main

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"sync"
	"syscall"
	"time"

	"bhatti/agent/wire"
)

const (
	watchesMax = 32
	// watchUnreadMax is how long a watch lives that nobody reads.
	watchUnreadMax = 10 * time.Minute
	// watchUnreadMin protects a watch from being replaced by a new one.
	watchUnreadMin = 10 * time.Second
	// watchPause lets events collect, so that a program that writes a lot is not interrupted for each.
	watchPause = 2 * time.Millisecond
	// watchNumberMax is the highest number that every reader can represent, with some distance.
	watchNumberMax = 1 << 52
)

type fileWatches struct {
	mu   sync.Mutex
	byID map[string]*fileWatch
	// reading counts the reads that are neither answered nor wait.
	reading sync.WaitGroup
}

type fileWatch struct {
	id   string
	file *os.File // the kernel's queue
	root int

	mu       sync.Mutex
	tree     watchTree
	queue    watchQueue
	reader   *stream // waits for events; nil if none does
	after    int64   // the number that it has
	readAt   time.Time
	expiry   *time.Timer
	isClosed bool
}

func (a *agent) fileWatch(s *stream, payload []byte) {
	fileOperation(s, payload, func(request wire.FileWatch) (any, error) {
		path, err := absolutePath(request.Path)
		if err != nil {
			return nil, err
		}
		root, err := syscall.Open(path, flagPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
		if err != nil {
			return nil, fileError(request.Path, err)
		}
		w, err := newFileWatch(root, request.Recursive)
		if err != nil {
			return nil, fileError(request.Path, err)
		}
		if err := a.watches.add(w); err != nil {
			w.close()
			return nil, err
		}
		if s.isCancelled() {
			a.watches.remove(w)
			return nil, errGivenUp
		}
		return wire.FileWatching{Watch: w.id}, nil
	})
}

// newFileWatch watches the directory root, which it closes in the end. Everything that happens afterwards is reported.
func newFileWatch(root int, isRecursive bool) (*fileWatch, error) {
	inotify, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		syscall.Close(root)
		return nil, err
	}
	var random [8]byte
	_, _ = rand.Read(random[:])
	w := &fileWatch{
		id: "w" + hex.EncodeToString(random[:]), root: root, file: os.NewFile(uintptr(inotify), "inotify"),
		queue: newWatchQueue(), readAt: time.Now(),
	}
	w.tree = watchTree{inotify: inotify, root: root, isRecursive: isRecursive, emit: w.queue.add}
	err = w.tree.fill()
	for reads := 1; err == nil && w.tree.isStale && reads < rereadsMax; reads++ {
		w.tree.isStale = false
		err = w.tree.fill()
	}
	if err != nil {
		w.close()
		return nil, err
	}
	go w.run()
	return w, nil
}

// run reads the kernel's queue, which is shorter than a busy program's changes.
func (w *fileWatch) run() {
	queue, err := w.file.SyscallConn()
	for err == nil {
		err = queue.Read(func(uintptr) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			before := w.tree.position
			w.update()
			return w.tree.position != before
		})
		time.Sleep(watchPause)
	}
}

// update answers a waiting reader if there is something to tell. It needs the watch's lock.
func (w *fileWatch) update() {
	if w.isClosed {
		return
	}
	if err := w.tree.update(); err != nil {
		w.tree.end("it cannot be watched: " + err.Error())
	}
	if w.reader != nil {
		w.answer(w.reader, w.after, true)
	}
}

// answer sends what there is. With wait it keeps the reader if there is nothing.
func (w *fileWatch) answer(s *stream, after int64, wait bool) {
	events, next := w.queue.take(after)
	answer := wire.FileEvents{Events: events, Next: next}
	if next == w.queue.last() {
		answer.Ended = w.tree.ended
	}
	if wait && len(events) == 0 && answer.Ended == "" {
		w.reader, w.after = s, after
		return
	}
	if w.reader == s {
		w.reader = nil
	}
	w.readAt = time.Now()
	s.succeed(answer)
}

func (a *agent) fileWatchRead(s *stream, payload []byte) {
	var request wire.FileWatchRead
	w, err := a.watches.find(payload, &request)
	if err == nil && (request.After < 0 || request.After > watchNumberMax) {
		err = wire.Errorf(wire.Invalid, "%d is no number of an event", request.After)
	}
	if err != nil {
		s.fail(asError(err))
		return
	}
	s.refuseInput()
	a.watches.reading.Add(1)
	go func() {
		defer a.watches.reading.Done()
		w.read(s, request)
	}()
}

func (w *fileWatch) read(s *stream, request wire.FileWatchRead) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leave()
	if w.isClosed {
		s.fail(noWatch(w.id))
		return
	}
	w.readAt = time.Now()
	w.update()
	w.answer(s, request.After, request.Wait && !s.isCancelled())
	if w.reader == s {
		s.whenCancelled(func() { w.leaveOf(s) })
	}
}

// leave answers the reader that waits. It needs the watch's lock.
func (w *fileWatch) leave() {
	if w.reader != nil {
		w.reader.succeed(wire.FileEvents{Events: []wire.FileEvent{}, Next: w.after})
		w.reader = nil
	}
}

func (w *fileWatch) leaveOf(s *stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reader == s {
		w.readAt = time.Now()
		w.leave()
	}
}

// leave answers every reader that waits, so that the connection has only streams of other operations. No read may start
// meanwhile.
func (all *fileWatches) leave() {
	all.reading.Wait()
	for _, w := range all.list() {
		w.mu.Lock()
		w.leave()
		w.mu.Unlock()
	}
}

func (a *agent) fileWatchRemove(s *stream, payload []byte) {
	var request wire.FileWatchRead
	w, err := a.watches.find(payload, &request)
	if err != nil {
		s.fail(asError(err))
		return
	}
	go func() {
		a.watches.remove(w)
		s.succeed(wire.Empty{})
	}()
}

func (all *fileWatches) find(payload []byte, request *wire.FileWatchRead) (*fileWatch, error) {
	if err := wire.Decode(payload, request); err != nil {
		return nil, err
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	if w := all.byID[request.Watch]; w != nil {
		return w, nil
	}
	return nil, noWatch(request.Watch)
}

func noWatch(id string) *wire.Error {
	return wire.Errorf(wire.NotFound, "no watch %q: it was removed, nobody has read it for %v, or the guest was booted",
		id, watchUnreadMax)
}

func (all *fileWatches) list() []*fileWatch {
	all.mu.Lock()
	defer all.mu.Unlock()
	list := make([]*fileWatch, 0, len(all.byID))
	for _, w := range all.byID {
		list = append(list, w)
	}
	return list
}

// add takes the place of the watch that nobody has read for longest if there are too many.
func (all *fileWatches) add(w *fileWatch) error {
	if list := all.list(); len(list) >= watchesMax {
		oldest := list[0]
		for _, one := range list {
			if one.unreadFor() > oldest.unreadFor() {
				oldest = one
			}
		}
		if oldest.unreadFor() < watchUnreadMin {
			return wire.Errorf(wire.LimitExceeded, "%d watches are open, which is the limit", watchesMax)
		}
		all.remove(oldest)
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.byID == nil {
		all.byID = map[string]*fileWatch{}
	}
	all.byID[w.id] = w
	w.mu.Lock()
	defer w.mu.Unlock()
	w.expiry = time.AfterFunc(watchUnreadMax, func() { all.expire(w) })
	return nil
}

// unreadFor is how long nobody has read the watch; zero while somebody waits.
func (w *fileWatch) unreadFor() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reader != nil {
		return 0
	}
	return time.Since(w.readAt)
}

func (all *fileWatches) expire(w *fileWatch) {
	left := watchUnreadMax - w.unreadFor()
	if left <= 0 {
		all.remove(w)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.isClosed {
		w.expiry.Reset(left)
	}
}

func (all *fileWatches) remove(w *fileWatch) {
	all.mu.Lock()
	delete(all.byID, w.id)
	all.mu.Unlock()
	w.close()
}

func (w *fileWatch) close() {
	w.mu.Lock()
	isFirst := !w.isClosed
	w.isClosed = true
	if w.expiry != nil {
		w.expiry.Stop()
	}
	if w.reader != nil {
		w.reader.fail(noWatch(w.id))
		w.reader = nil
	}
	w.mu.Unlock()
	if isFirst {
		w.file.Close() // Waits for run, which needs the lock.
		syscall.Close(w.root)
	}
}
