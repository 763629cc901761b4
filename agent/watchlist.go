// New directories of a watched tree: each is watched first and listed then, so that nothing made in it is missed.

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"syscall"
	"unsafe"

	"bhatti/agent/wire"
)

// appear reports a new name, unless a listing has, and watches it if it is a directory.
func (t *watchTree) appear(parent *watched, name string, isDirectory, isReported bool) error {
	place := t.pathOf(parent, name)
	former := parent.children[name]
	fd, id, err := -1, int32(-1), error(errNotWatched)
	if isDirectory && t.isRecursive {
		if fd, id, err = t.openIn(parent, name); err == nil {
			defer syscall.Close(fd)
		}
	}
	if former != nil && former.id == id {
		return nil // The listing of its parent has found it.
	}
	if former != nil {
		t.forget(former)
		t.report(wire.FileRemoved, place, true)
		isReported = false
	}
	if !isReported {
		t.report(wire.FileCreated, place, isDirectory)
	}
	if err != nil {
		return t.without(parent, place, err)
	}
	return t.adopt(parent, name, fd, id, 0)
}

// adopt puts an open directory into the tree, with everything below it.
func (t *watchTree) adopt(parent *watched, name string, fd int, id int32, depth int) error {
	if known := t.byID[id]; known != nil {
		// It has moved here, and the event of that is still to come. All of it is reported here.
		t.forget(known)
		var err error
		if id, err = t.addWatch(fd); err != nil {
			return t.without(parent, t.pathOf(parent, name), err)
		}
	}
	if parent.isGone {
		t.isStale = true
		return nil
	}
	directory := &watched{id: id, name: name, parent: parent, inode: identityOf(fd)}
	parent.put(directory)
	t.byID[id] = directory
	return t.list(directory, fd, depth)
}

func (d *watched) put(child *watched) {
	if d.children == nil {
		d.children = map[string]*watched{}
	}
	d.children[child.name] = child
}

// list reports and watches everything in a new directory, and below it.
func (t *watchTree) list(directory *watched, fd, depth int) error {
	below, err := t.listOne(directory, fd)
	for i := 0; i < len(below) && err == nil && !t.isStale; i++ {
		err = t.listBelow(directory, fd, below[i], depth+1)
	}
	return err
}

func (t *watchTree) listBelow(parent *watched, folder int, name string, depth int) error {
	place := t.pathOf(parent, name)
	if depth > watchedDepthMax {
		return t.without(parent, place, errTooDeep)
	}
	fd, id, err := t.openDirectory(folder, name)
	if err != nil {
		return t.without(parent, place, err)
	}
	defer syscall.Close(fd)
	return t.adopt(parent, name, fd, id, depth)
}

// listOne reports the names in a directory and returns those of directories, which are not watched yet.
func (t *watchTree) listOne(directory *watched, fd int) ([]string, error) {
	place := t.pathOf(directory, "")
	var below []string
	err := eachEntry(fd, func(name string, isDirectory bool) {
		t.report(wire.FileCreated, path.Join(place, name), isDirectory)
		if isDirectory {
			below = append(below, name)
		}
		if !t.isSilent && len(directory.listed) < listedMax {
			if directory.listed == nil {
				directory.listed = map[string]bool{}
				t.fresh = append(t.fresh, directory)
			}
			directory.listed[name] = true
		}
	})
	var unread int32
	_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, uintptr(t.inotify), fionread, uintptr(unsafe.Pointer(&unread)))
	directory.listedAt = t.position + t.unhandled + int64(unread)
	if err != nil {
		return below, t.without(directory, place, err)
	}
	return below, nil
}

func eachEntry(fd int, do func(name string, isDirectory bool)) error {
	copied, err := openAt(fd, ".", syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(copied), fmt.Sprintf("/proc/self/fd/%d", copied))
	defer file.Close()
	for {
		entries, err := file.ReadDir(512)
		for _, entry := range entries {
			do(entry.Name(), entry.IsDir())
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return nil
		default:
			return rootCause(err)
		}
	}
}

// lookAgain compares directories that could not be opened under their paths with the tree, once no event is unread.
func (t *watchTree) lookAgain() error {
	uncertain := t.uncertain
	t.uncertain = nil
	for directory := range uncertain {
		if directory.isGone || t.isStale {
			continue
		}
		fd, err := t.openKnown(directory)
		if err != nil {
			t.doubt(directory)
			continue
		}
		var below []string
		err = eachEntry(fd, func(name string, isDirectory bool) {
			if isDirectory {
				below = append(below, name)
			}
		})
		syscall.Close(fd)
		for i := 0; i < len(below) && err == nil && !directory.isGone; i++ {
			err = t.appear(directory, below[i], true, true)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *watchTree) doubt(directory *watched) {
	if t.uncertain == nil {
		t.uncertain = map[*watched]bool{}
	}
	t.uncertain[directory] = true
}

// without goes on without the watch of a directory. It may be gone, and then an event will say so.
func (t *watchTree) without(parent *watched, place string, err error) error {
	switch err {
	case syscall.ENOENT, syscall.ENOTDIR, syscall.ELOOP, errKernelFiles, errNotWatched:
		return nil
	case errElsewhere:
		t.doubt(parent)
		return nil
	case syscall.ENOSPC:
		err = errTooManyWatched
	}
	if t.isSilent && (err == errTooManyWatched || err == errTooDeep) {
		return wire.Errorf(wire.LimitExceeded, "%q: %v", place, err)
	}
	if t.isSilent {
		return err
	}
	t.tell(wire.FileEvent{Type: wire.EventsLost, Path: place, Reason: err.Error()})
	return nil
}

var (
	errNotWatched     = errors.New("only the directory itself is watched")
	errElsewhere      = errors.New("the directory is not where the tree has it")
	errTooManyWatched = fmt.Errorf("more directories than can be watched: at most %d, and fs.inotify.max_user_watches "+
		"of the guest's kernel", watchedMax)
	errTooDeep = fmt.Errorf("directories are nested deeper than %d", watchedDepthMax)
)

const openedForWatch = syscall.O_RDONLY | syscall.O_DIRECTORY | syscall.O_NONBLOCK | syscall.O_NOFOLLOW

// openKnown opens a directory of the tree, if it is at its path now.
func (t *watchTree) openKnown(directory *watched) (int, error) {
	fd, err := openResolved(t.root, t.pathOf(directory, ""), openedForWatch, resolveBeneath|resolveNoLinks)
	if err != nil {
		return -1, errElsewhere
	}
	if identityOf(fd) != directory.inode {
		syscall.Close(fd)
		return -1, errElsewhere
	}
	return fd, nil
}

// openIn opens and watches a directory in one of the tree.
func (t *watchTree) openIn(parent *watched, name string) (int, int32, error) {
	folder, err := t.openKnown(parent)
	if err != nil {
		return -1, -1, err
	}
	defer syscall.Close(folder)
	return t.openDirectory(folder, name)
}

func (t *watchTree) openDirectory(folder int, name string) (int, int32, error) {
	fd, err := openAt(folder, name, openedForWatch, 0)
	if err != nil {
		return -1, -1, err
	}
	id, err := int32(-1), error(errKernelFiles)
	if !isKernelFilesystem(fd) {
		id, err = t.addWatch(fd)
	}
	if err != nil {
		syscall.Close(fd)
		return -1, -1, err
	}
	return fd, id, nil
}

func (t *watchTree) addWatch(fd int) (int32, error) {
	if len(t.byID) >= watchedMax {
		return -1, errTooManyWatched
	}
	id, err := syscall.InotifyAddWatch(t.inotify, fmt.Sprintf("/proc/self/fd/%d", fd), watchMask)
	return int32(id), err
}

func identityOf(fd int) fileID {
	var about syscall.Stat_t
	_ = syscall.Fstat(fd, &about)
	return fileID{about.Dev, about.Ino}
}
