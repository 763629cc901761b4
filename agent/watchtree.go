// The directories of a watch: which kernel watch stands for which path, kept true while directories come, go and move.
//
// The kernel reports changes of names in a directory that is watched, so a new directory is watched first and listed
// then: what was made in it before its watch is reported from the list. A watch follows its directory when that is
// renamed, so paths are built from the tree. The tree is opened by what the names mean now, while events tell of the
// past; later events correct it. If a directory turns out to be another one than the tree has at its path, its path is
// reported as removed and as created again with all that it holds. So a reader who applies the events to a list of
// names has, when the events end, the names that are there.

package main

import (
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"bhatti/agent/wire"
)

const (
	watchMask = syscall.IN_CREATE | syscall.IN_DELETE | syscall.IN_MODIFY | syscall.IN_ATTRIB |
		syscall.IN_MOVED_FROM | syscall.IN_MOVED_TO | syscall.IN_MOVE_SELF |
		syscall.IN_ONLYDIR | inExcludeUnlinked
	inExcludeUnlinked = 0x04000000 // IN_EXCL_UNLINK
	fionread          = 0x541b
	// watchedMax limits the directories of a watch.
	watchedMax = 65536
	// watchedDepthMax limits the descriptors that are open while directories are listed.
	watchedDepthMax = 256
	// listedMax limits the names remembered of a new directory; beyond it a file may be reported as created twice.
	listedMax = 65536
)

// watched is a directory of the tree.
type watched struct {
	id       int32 // of the kernel's watch
	name     string
	parent   *watched
	children map[string]*watched
	inode    fileID
	isGone   bool
	// listed are the names found when the directory was listed, until the events before that are read.
	listed map[string]bool
	// listedAt is the place of the listing in the kernel's queue.
	listedAt int64
}

type watchTree struct {
	inotify     int
	root        int // descriptor of the watched directory
	isRecursive bool
	emit        func(wire.FileEvent)

	top   *watched
	above int32 // the watch of the directory above; -1 if there is none
	byID  map[int32]*watched
	fresh []*watched // directories with listed names
	moves movesInProgress
	// uncertain are directories that could not be opened under their paths while something appeared in them.
	uncertain map[*watched]bool
	// position counts the bytes of the kernel's queue that are processed, unhandled those that are only read.
	position, unhandled int64
	buffer              [16384]byte
	// isSilent suppresses events while the tree is read.
	isSilent bool
	// isStale ignores events after the kernel has dropped some, until the tree is read again.
	isStale bool
	// ended says why nothing more can be watched.
	ended string
}

// report emits an event of a path.
func (t *watchTree) report(kind, path string, isDirectory bool) {
	t.tell(wire.FileEvent{Type: kind, Path: path, IsDirectory: isDirectory})
}

func (t *watchTree) tell(event wire.FileEvent) {
	if t.isSilent || isOurTemporary(event.Path) {
		return
	}
	t.emit(readable(event))
}

// fill watches the tree as it is now and reports nothing.
func (t *watchTree) fill() error {
	t.byID, t.fresh, t.moves, t.uncertain = map[int32]*watched{}, nil, movesInProgress{}, nil
	t.isSilent = true
	defer func() { t.isSilent = false }()
	fd, err := openAt(t.root, ".", syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	id, err := t.addWatch(fd)
	if err != nil {
		return err
	}
	t.top = &watched{id: id, name: ".", inode: identityOf(fd)}
	t.byID[id] = t.top
	t.watchAbove(fd)
	if t.isRecursive {
		if err := t.list(t.top, fd, 0); err != nil {
			return err
		}
	}
	// Changes until now may or may not be in the tree; events correct that.
	return t.read()
}

// watchAbove watches the directory above, which alone reports the removal of an open directory.
func (t *watchTree) watchAbove(fd int) {
	t.above = -1
	above, err := openAt(fd, "..", openedForWatch, 0)
	if err != nil {
		return
	}
	defer syscall.Close(above)
	if identityOf(above) == t.top.inode {
		return // The root directory.
	}
	id, err := syscall.InotifyAddWatch(t.inotify, fmt.Sprintf("/proc/self/fd/%d", above), syscall.IN_DELETE|syscall.IN_ONLYDIR)
	if err == nil {
		t.above = int32(id)
	}
}

func (t *watchTree) isRemoved() bool {
	var about syscall.Stat_t
	return syscall.Fstat(t.root, &about) == nil && about.Nlink == 0
}

// moveWait is how long the second event of a rename may take: a system call that has begun.
const moveWait = 2 * time.Millisecond

// rereadsMax limits how often in a row the tree is read while the kernel drops events.
const rereadsMax = 3

// update reports everything that has happened until now.
func (t *watchTree) update() error {
	err := t.read()
	if err == nil && len(t.moves.open) > 0 {
		time.Sleep(moveWait)
		err = t.read()
		t.settleMoves()
	}
	if err == nil && len(t.uncertain) > 0 {
		err = t.lookAgain()
	}
	if err != nil || !t.isStale {
		return err
	}
	former := t.byID
	for reads := 0; err == nil && t.isStale && reads < rereadsMax; reads++ {
		t.isStale = false
		err = t.fill()
	}
	for id := range former {
		if t.byID[id] == nil {
			_, _ = syscall.InotifyRmWatch(t.inotify, uint32(id))
		}
	}
	t.tell(lostEvent(reasonKernel))
	return err
}

// read processes the kernel's queue until it is empty.
func (t *watchTree) read() error {
	for {
		count, err := syscall.Read(t.inotify, t.buffer[:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN || count == 0:
			for _, directory := range t.fresh {
				directory.listed = nil
			}
			t.fresh = nil
			return nil
		case err != nil:
			return err
		}
		for rest := t.buffer[:count]; len(rest) >= syscall.SizeofInotifyEvent; {
			event := (*syscall.InotifyEvent)(unsafe.Pointer(&rest[0]))
			size := syscall.SizeofInotifyEvent + int(event.Len)
			name := rest[syscall.SizeofInotifyEvent:size]
			for len(name) > 0 && name[len(name)-1] == 0 {
				name = name[:len(name)-1]
			}
			t.position += int64(size)
			t.unhandled = int64(len(rest) - size)
			if err := t.handle(event, string(name)); err != nil {
				return err
			}
			rest = rest[size:]
		}
	}
}

func (t *watchTree) handle(event *syscall.InotifyEvent, name string) error {
	if event.Mask&syscall.IN_Q_OVERFLOW != 0 {
		t.isStale = true
	}
	if event.Wd == t.above && t.isRemoved() {
		t.report(wire.FileRemoved, ".", true)
		t.end("the directory was removed")
	}
	directory := t.byID[event.Wd]
	if t.isStale || directory == nil {
		return nil
	}
	if name == "" {
		t.handleSelf(directory, event.Mask)
		return nil
	}
	isDirectory := event.Mask&syscall.IN_ISDIR != 0
	isListed := directory.takeListed(name, t.position, event.Mask)
	switch {
	case event.Mask&syscall.IN_CREATE != 0:
		t.settleMovesFrom(directory)
		return t.appear(directory, name, isDirectory, isListed)
	case event.Mask&syscall.IN_DELETE != 0:
		t.settleMovesFrom(directory)
		t.vanish(directory, name, isDirectory)
	case event.Mask&syscall.IN_MOVED_FROM != 0:
		t.settleMovesFrom(directory)
		t.moves.add(moveFrom{cookie: event.Cookie, directory: directory, name: name, isDirectory: isDirectory})
		if len(t.moves.open) > movesMax {
			t.settleMoves()
		}
	case event.Mask&syscall.IN_MOVED_TO != 0:
		return t.arrive(directory, name, event.Cookie, isDirectory, isListed)
	case event.Mask&syscall.IN_MODIFY != 0:
		t.report(wire.FileWritten, t.pathOf(directory, name), isDirectory)
	case event.Mask&syscall.IN_ATTRIB != 0:
		if !t.isNameless(directory, name) {
			t.report(wire.FileChanged, t.pathOf(directory, name), isDirectory)
		}
	}
	return nil
}

// handleSelf handles an event of a watched directory itself; its parent reports most of them too.
func (t *watchTree) handleSelf(directory *watched, mask uint32) {
	isTop := directory == t.top
	switch {
	case mask&syscall.IN_IGNORED != 0:
		delete(t.byID, directory.id)
		if isTop {
			t.end("the directory is gone")
		}
	case !isTop:
	case mask&syscall.IN_MOVE_SELF != 0:
		t.report(wire.FileRemoved, ".", true)
		t.end("the directory was renamed")
	case mask&syscall.IN_UNMOUNT != 0:
		t.end("the directory's filesystem was unmounted")
	case mask&syscall.IN_ATTRIB != 0:
		t.report(wire.FileChanged, ".", true)
	}
}

func (t *watchTree) end(reason string) {
	if t.ended == "" {
		t.ended = reason
	}
}

// takeListed reports whether the listing of a directory has reported the name already, from an event that was in the
// kernel's queue before.
func (d *watched) takeListed(name string, position int64, mask uint32) bool {
	if d.listed == nil || position > d.listedAt || mask&(syscall.IN_MODIFY|syscall.IN_ATTRIB) != 0 || !d.listed[name] {
		return false
	}
	delete(d.listed, name)
	return true
}
